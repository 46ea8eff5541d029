"""All texts of the page: English, Spanish."""

LANGUAGES = ("en", "es")

TEXTS: dict[str, tuple[str, str]] = {
    # the page
    "title": ("alphabar studio", "alphabar studio"),
    "tagline": ("Play with your model, and watch it learn.", "Juega con tu modelo y mira cómo aprende."),
    "other_language": ("Español", "English"),
    "model": ("Model", "Modelo"),
    "no_model": (
        "There is no trained model in {folder} yet: start a training under Runs.",
        "Todavía no hay ningún modelo entrenado en {folder}: empieza un entrenamiento en Entrenamientos.",
    ),
    "refresh": ("Look again", "Volver a mirar"),
    "broken": (
        "Something in the studio broke ({name}); the terminal shows where.",
        "Algo falló en el estudio ({name}); la terminal muestra dónde.",
    ),
    "parameters": ("{n} parameters", "{n} parámetros"),
    "images_seen": ("{n} images seen", "{n} imágenes vistas"),
    "loading": ("Loading the model …", "Cargando el modelo …"),
    "cancel": ("Cancel", "Cancelar"),
    "cancelled": ("Cancelled.", "Cancelado."),
    "step": ("step {i} of {n}", "paso {i} de {n}"),
    "seed": ("Seed", "Semilla"),
    "steps": ("Steps", "Pasos"),
    "more": ("More", "Más"),
    # Generate
    "generate": ("Generate", "Generar"),
    "number": ("Pictures", "Imágenes"),
    "field": ("Condition", "Condición"),
    "guidance": ("Guidance", "Guía"),
    "guidance_info": (
        "How strongly the pictures follow what is asked; 1 is as the model learned it.",
        "Con qué fuerza las imágenes siguen lo pedido; 1 es como lo aprendió el modelo.",
    ),
    "sampler": ("Sampler", "Muestreador"),
    "start": ("Start from", "Empezar desde"),
    "start_noise": ("pure noise", "ruido puro"),
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
        "A picture saved here, or by `alphabar sample`, knows how it was drawn. Drop it and see it drawn again.",
        "Una imagen guardada aquí o con `alphabar sample` sabe cómo se dibujó. Suéltala y mira cómo se repite.",
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
}
