"""All texts of the page: English, Spanish."""

LANGUAGES = ("en", "es")


TEXTS: dict[str, tuple[str, str]] = {
    # the page
    "tagline": ("Play with your model, and watch it learn.", "Juega con tu modelo y mira cómo aprende."),
    "other_language": ("Español", "English"),
    "model": ("Model", "Modelo"),
    "no_model": (
        "There is no trained model in {folder} yet: start a training under Runs.",
        "Todavía no hay ningún modelo entrenado en {folder}: empieza un entrenamiento en Entrenamientos.",
    ),
    "broken": (
        "Something in the studio broke ({name}); the terminal shows where.",
        "Algo falló en el estudio ({name}); la terminal muestra dónde.",
    ),
    "parameters": ("{n} parameters", "{n} parámetros"),
    "images_seen": ("{n} images seen", "{n} imágenes vistas"),
    "loading": ("Loading the model …", "Cargando el modelo …"),
    "cancel": ("Cancel", "Cancelar"),
    "stopped": ("Stopped.", "Detenido."),
    "step": ("step {i} of {n}", "paso {i} de {n}"),
    "seed": ("Seed", "Semilla"),
    "steps": ("Steps", "Pasos"),
    "more": ("More", "Más"),
    # Generate
    "generate": ("Generate", "Generar"),
    "number": ("Pictures", "Imágenes"),
    "field": ("Condition", "Condición"),
    "as_data": (
        "Ask for what you like. All left empty: every kind, as often as the data has it.",
        "Pide lo que quieras. Todo vacío: cada tipo, con la frecuencia que tiene en los datos.",
    ),
    "guidance": ("Guidance", "Guía"),
    "guidance_info": (
        "How strongly the pictures follow what is asked; 1 is as the model learned it.",
        "Con qué fuerza las imágenes siguen lo pedido; 1 es como lo aprendió el modelo.",
    ),
    "sampler": ("Sampler", "Muestreador"),
    "start": ("Start from", "Empezar desde"),
    "start_standard_normal": ("pure noise", "ruido puro"),
    "start_gaussian": ("noise like the data", "ruido como los datos"),
    "start_info": (
        "Noise that carries the data's mean and colours helps schedules that stop short of pure noise.",
        "El ruido con la media y los colores de los datos ayuda si el proceso no llega al ruido puro.",
    ),
    "autoguidance": ("Autoguidance (1 is none)", "Autoguía (1 es ninguna)"),
    "sag": ("Self-attention guidance (0 is none)", "Guía por autoatención (0 es ninguna)"),
    "pag": ("Perturbed-attention guidance (0 is none)", "Guía por atención perturbada (0 es ninguna)"),
    "draw": ("Draw", "Dibujar"),
    "draw_empty": ("Pictures appear here while they form.", "Las imágenes aparecen aquí mientras se forman."),
    "drawn": (
        "{n} pictures in {seconds} s. Click one to save it, with its settings inside.",
        "{n} imágenes en {seconds} s. Haz clic en una para guardarla con sus ajustes dentro.",
    ),
    "save_one": ("Save this picture", "Guardar esta imagen"),
    "save_all": ("Save all (zip)", "Guardar todas (zip)"),
    "again": ("Draw a picture again", "Volver a dibujar una imagen"),
    "again_info": (
        "A picture saved here, or by `alphabar sample`, knows how it was drawn. Drop it and see it drawn "
        "again.",
        "Una imagen guardada aquí o con `alphabar sample` sabe cómo se dibujó. Suéltala y mira cómo se "
        "repite.",
    ),
    "again_drop": ("PNG", "PNG"),
    "again_same": ("The same picture, to the last bit.", "La misma imagen, hasta el último bit."),
    "again_apart": (
        "The same picture but for rounding: pixels differ by at most {apart} of 255.",
        "La misma imagen salvo redondeo: los píxeles difieren como máximo en {apart} de 255.",
    ),
    "again_other_size": (
        "It was drawn by a model of another size.",
        "La dibujó un modelo de otro tamaño.",
    ),
    "again_other_model": (
        "It was drawn by a model at another moment of its training.",
        "La dibujó un modelo en otro momento de su entrenamiento.",
    ),
    "again_restored": (
        "this picture was mended, not drawn: its original would be needed",
        "esta imagen fue reparada, no dibujada: haría falta el original",
    ),
    "dropped": ("dropped", "soltada"),
    "drawn_again": ("drawn again", "dibujada de nuevo"),
    # Process
    "process": ("Process", "Proceso"),
    "process_about": (
        "Diffusion mixes a picture x₀ with noise ε: x<sub>t</sub> = α·x₀ + σ·ε. The model has learned one "
        "thing: to "
        "guess x₀ from x<sub>t</sub>. Move t and see how much it can still tell.",
        "La difusión mezcla una imagen x₀ con ruido ε: x<sub>t</sub> = α·x₀ + σ·ε. El modelo ha aprendido "
        "una sola "
        "cosa: adivinar x₀ a partir de x<sub>t</sub>. Mueve t y mira cuánto puede reconocer todavía.",
    ),
    "picture": ("Picture", "Imagen"),
    "source_data": ("from the data", "de los datos"),
    "source_drawn": ("drawn by the model", "dibujada por el modelo"),
    "source_own": ("my own", "mía"),
    "which": ("Number of the picture", "Número de la imagen"),
    "own_picture": ("A picture", "Una imagen"),
    "noise_seed": ("Seed of the noise", "Semilla del ruido"),
    "take": ("Take this picture", "Tomar esta imagen"),
    "time": ("Time t", "Tiempo t"),
    "time_info": ("0 is the picture, 1 is noise", "0 es la imagen, 1 es ruido"),
    "process_empty": ("Take a picture, then move t.", "Toma una imagen y luego mueve t."),
    "no_picture": ("there is no picture yet: drop one first", "todavía no hay imagen: suelta una primero"),
    "no_diffusion": (
        "this model draws in one step: there is no process to look at",
        "este modelo dibuja en un solo paso: no hay proceso que mirar",
    ),
    "no_data": (
        "this model does not know where its pictures are: use one of your own",
        "este modelo no sabe dónde están sus imágenes: usa una tuya",
    ),
    "reading": ("reading the pictures …", "leyendo las imágenes …"),
    "drawing": ("drawing …", "dibujando …"),
    "trio_0": ("x₀, the picture", "x₀, la imagen"),
    "trio_1": ("xₜ, what the model sees", "xₜ, lo que ve el modelo"),
    "trio_2": ("its guess of x₀", "su estimación de x₀"),
    "process_numbers": (
        "At t = <b>{t}</b>, x<sub>t</sub> = <b>{alpha}</b>·x₀ + <b>{sigma}</b>·ε: a signal-to-noise ratio of "
        "<b>{snr}</b>. The guess is off by <b>{rms}</b> of 255 (root mean square).",
        "En t = <b>{t}</b>, x<sub>t</sub> = <b>{alpha}</b>·x₀ + <b>{sigma}</b>·ε: una relación "
        "señal/ruido de "
        "<b>{snr}</b>. La estimación se desvía <b>{rms}</b> de 255 (media cuadrática).",
    ),
    "region_polish": (
        "Nearly clean: everything is there to see, and only the finest grain is left to remove. Sampling "
        "ends here.",
        "Casi limpia: todo está a la vista y solo queda quitar el grano más fino. Aquí termina el muestreo.",
    ),
    "region_texture": (
        "Shapes survive the noise, texture does not: the model paints the surface it has learned to expect.",
        "Las formas sobreviven al ruido, la textura no: el modelo pinta la superficie que aprendió a "
        "esperar.",
    ),
    "region_forms": (
        "Only large forms and colours survive. What the picture will show is being decided at these "
        "levels, so the "
        "guess is a blur of all the pictures that could hide here.",
        "Solo sobreviven las grandes formas y los colores. En estos niveles se decide qué mostrará la "
        "imagen: la "
        "estimación es una mezcla borrosa de todas las imágenes que podrían esconderse aquí.",
    ),
    "region_mean": (
        "Nearly nothing survives, and the best guess is close to the mean of all pictures. That is why "
        "one step "
        "cannot draw: sampling takes many, and each decides a little.",
        "Casi nada sobrevive, y la mejor estimación se acerca a la media de todas las imágenes. Por eso "
        "un solo paso "
        "no basta para dibujar: el muestreo da muchos, y cada uno decide un poco.",
    ),
    "levels_plot": ("alpha and sigma over t", "alfa y sigma según t"),
    "snr_axis": ("signal to noise, dB", "señal/ruido, dB"),
    "snr_plot": ("Signal-to-noise ratio over t, in decibels", "Relación señal/ruido según t, en decibelios"),
    # Mend
    "mend": ("Mend", "Reparar"),
    "fill": ("Fill", "Rellenar"),
    "fill_info": (
        "Paint over what is to be invented. Every other pixel stays exactly as it is.",
        "Pinta sobre lo que haya que inventar. Todos los demás píxeles quedan exactamente igual.",
    ),
    "paint": ("Picture and mask", "Imagen y máscara"),
    "fill_go": ("Fill it in", "Rellenar"),
    "example": ("Draw me one", "Dibújame una"),
    "undo": ("Undo", "Deshacer"),
    "enlarge": ("Enlarge", "Ampliar"),
    "enlarge_info": (
        "Invents the detail that a larger picture needs and that fits the small one.",
        "Inventa el detalle que necesita una imagen mayor y que encaja con la pequeña.",
    ),
    "factor": ("Times wider and higher", "Veces más ancha y alta"),
    "enlarge_go": ("Enlarge it", "Ampliar"),
    "restore": ("Restore", "Restaurar"),
    "restore_info": (
        "Undoes what is known to have happened to a picture.",
        "Deshace lo que se sabe que le pasó a una imagen.",
    ),
    "degradation": ("What was done to it", "Qué le pasó"),
    "degradation_info": (
        "Choose one, or write parts joined by +, such as blur:2+noise:0.05",
        "Elige una, o escribe partes unidas por +, como blur:2+noise:0.05",
    ),
    "spoil": (
        "My picture is whole: spoil it this way first, to see",
        "Mi imagen está entera: primero estropéala así, para ver",
    ),
    "restore_go": ("Restore it", "Restaurar"),
    "answers": ("Answers", "Respuestas"),
    "longest": ("Longest side, px", "Lado mayor, px"),
    "longest_info": ("larger pictures are made smaller", "las mayores se reducen"),
    "mend_empty": (
        "Answers appear here while they form.",
        "Las respuestas aparecen aquí mientras se forman.",
    ),
    "mended": (
        "{n} answers to the same picture: choose one below.",
        "{n} respuestas a la misma imagen: elige una abajo.",
    ),
    "before_after": ("Before, after", "Antes, después"),
    "spread": ("Spread: white where the answers differ", "Dispersión: blanco donde difieren las respuestas"),
    "go_on": ("Go on with this answer", "Seguir con esta respuesta"),
    "no_mask": (
        "nothing is painted yet: paint what is to be filled",
        "aún no hay nada pintado: pinta lo que falta",
    ),
    "no_files": (
        "mask and kernel files are for the command line; paint a mask under Fill",
        "los archivos de máscara y núcleo son para la línea de comandos; pinta una máscara en Rellenar",
    ),
    # Runs
    "runs": ("Runs", "Entrenamientos"),
    "runs_shown": ("Shown", "Mostrados"),
    "runs_shown_info": ("up to four side by side", "hasta cuatro, lado a lado"),
    "no_runs": ("There is no run here yet: start one below.", "Aún no hay ninguno: empieza uno abajo."),
    "budget": ("Time to train", "Tiempo de entrenamiento"),
    "budget_more": ("Time to train in all", "Tiempo total de entrenamiento"),
    "budget_info": ("45s, 90m or 2h", "45s, 90m o 2h"),
    "pause": ("Pause", "Pausar"),
    "resume": ("Resume", "Reanudar"),
    "pausing": ("Finishing this update and saving …", "Terminando este paso y guardando …"),
    "film": ("The same noise, along the training", "El mismo ruido, a lo largo del entrenamiento"),
    "frame": ("Moment", "Momento"),
    "play": ("Play", "Ver"),
    "stop": ("Stop", "Parar"),
    "no_film": ("No grid of samples yet.", "Aún no hay muestras."),
    "new_run": ("Train a model", "Entrenar un modelo"),
    "pictures": ("Pictures", "Imágenes"),
    "pictures_upload": ("my pictures", "mis imágenes"),
    "pictures_toycars": ("toycars, built in", "toycars, incluidas"),
    "pictures_drop": ("A zip, or pictures", "Un zip, o imágenes"),
    "run_name": ("Name", "Nombre"),
    "size": ("Size, px", "Tamaño, px"),
    "size_info": ("of the pictures", "de las imágenes"),
    "recipe": ("Recipe", "Receta"),
    "by_budget": ("what suits this machine and the time", "lo que convenga a esta máquina y al tiempo"),
    "go_on_from": ("go on from {model}, at its size", "seguir desde {model}, a su tamaño"),
    "train": ("Train", "Entrenar"),
    "no_files_given": (
        "there are no pictures yet: drop a zip or pictures",
        "aún no hay imágenes: suelta un zip o imágenes",
    ),
    "unpacking": ("Unpacking …", "Desempaquetando …"),
    "unpacked": ("{n} files.", "{n} archivos."),
    "ended": ("the training ended at once", "el entrenamiento terminó enseguida"),
    "training": ("{name} is training.", "{name} está entrenando."),
    "choose_run": ("choose a run first", "elige primero un entrenamiento"),
    "column_run": ("Run", "Nombre"),
    "column_state": ("State", "Estado"),
    "column_images": ("Images seen", "Imágenes vistas"),
    "column_rate": ("Speed", "Velocidad"),
    "column_loss": ("Loss", "Pérdida"),
    "column_distance": ("Distance", "Distancia"),
    "column_time_left": ("Time left", "Tiempo restante"),
    "live": ("training", "entrenando"),
    "resting": ("resting", "en reposo"),
    "soon": ("soon known", "pronto se sabrá"),
    "at_most": ("at most {hours} h", "como máximo {hours} h"),
    "plot_loss": ("Training loss", "Pérdida de entrenamiento"),
    "plot_levels": ("Error by noise level", "Error por nivel de ruido"),
    "plot_distance": ("Distance from the data (KID)", "Distancia a los datos (KID)"),
    "plot_rate": ("Images a second", "Imágenes por segundo"),
    "images_axis": ("images seen", "imágenes vistas"),
    "levels_axis": ("noisier  ←  log SNR  →  cleaner", "más ruido  ←  log SNR  →  más limpio"),
    # Compare
    "compare": ("Compare", "Comparar"),
    "vary": ("What differs", "Qué cambia"),
    "vary_models": ("models", "modelos"),
    "vary_samplers": ("samplers", "muestreadores"),
    "vary_steps": ("steps", "pasos"),
    "vary_guidance": ("guidance", "guía"),
    "models": ("Models", "Modelos"),
    "values": ("Values", "Valores"),
    "values_info": ("a column each, up to six", "una columna cada uno, hasta seis"),
    "conditions": ("Asked for", "Se pide"),
    "ask_info": ("such as class=hatchback", "como class=hatchback"),
    "noises": ("Noises", "Ruidos"),
    "compare_go": ("Compare", "Comparar"),
    "compare_empty": (
        "A row is one noise, a column one way to draw from it.",
        "Una fila es un ruido; una columna, una manera de dibujar a partir de él.",
    ),
    "no_values": ("there is nothing to compare: give values", "no hay nada que comparar: da valores"),
    "compared": ("Each row began with the same noise.", "Cada fila empezó con el mismo ruido."),
    # Data
    "data": ("Data", "Datos"),
    "data_what": ("Pictures", "Imágenes"),
    "data_of": ("those of {name}", "las de {name}"),
    "data_empty": (
        "What is in a data set, what is broken, what is double.",
        "Qué hay en un conjunto de datos, qué está roto, qué está repetido.",
    ),
    "inspect": ("Inspect", "Inspeccionar"),
    "looking": ("{n} of {total} pictures", "{n} de {total} imágenes"),
    "fact_pictures": ("pictures", "imágenes"),
    "fact_bad": ("left out", "excluidas"),
    "fact_classes": ("classes", "clases"),
    "fact_double": ("groups of doubles", "grupos repetidos"),
    "fact_size": ("median size", "tamaño mediano"),
    "fact_suggested": ("suggested", "sugerido"),
    "classes": ("Classes", "Clases"),
    "shapes": ("Shapes, width : height", "Formas, ancho : alto"),
    "double": ("Shown more than once", "Repetidas"),
    "bad": ("Left out", "Excluidas"),
    "and_more": ("… and {n} more", "… y {n} más"),
    "copies_bytes": ("the same file", "el mismo archivo"),
    "copies_pixels": ("the same pixels", "los mismos píxeles"),
    "copies_near": ("nearly the same", "casi iguales"),
    "across": ("across the held-out split", "a ambos lados de la separación"),
}
