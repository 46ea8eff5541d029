// Plays a film: the pictures of a process, one moment after the other. Nothing else needs a script of its own.
() => {
  if (window.film) return;
  const of = (element) => element.closest(".film");
  const show = (film, at) => {
    const frames = film.querySelectorAll(".moment");
    const i = (at + frames.length) % frames.length;
    frames.forEach((frame, j) => frame.classList.toggle("shown", i === j));
    film.dataset.at = i;
    film.querySelector("input[type=range]").value = i;
  };
  const pause = (film) => {
    clearInterval(film.timer);
    film.timer = null;
    film.querySelector(".play").setAttribute("aria-pressed", "false");
  };
  const play = (film) => {
    const speed = +film.querySelector("select").value;
    clearInterval(film.timer);
    film.timer = setInterval(() => {
      if (!film.isConnected) clearInterval(film.timer);
      else show(film, +film.dataset.at + 1);
    }, 1000 / (6 * speed));
    film.querySelector(".play").setAttribute("aria-pressed", "true");
  };
  window.film = {
    toggle: (element) => { const film = of(element); film.timer ? pause(film) : play(film); },
    speed: (element) => { const film = of(element); if (film.timer) play(film); },
    seek: (element) => { const film = of(element); pause(film); show(film, +element.value); },
    full: (element) => {
      if (document.fullscreenElement) document.exitFullscreen();
      else of(element).requestFullscreen();
    },
    key: (event) => {
      const film = of(event.target), step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (event.target.matches("input, select, button, a")) return;
      if (step) { pause(film); show(film, +film.dataset.at + step); }
      else if (event.key === " ") film.timer ? pause(film) : play(film);
      else if (event.key === "f") window.film.full(film);
      else return;
      event.preventDefault();
    },
  };
}
