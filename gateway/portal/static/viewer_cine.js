/* Cine: a stack that turns by itself.

   Promises: the next image is shown once it is here, so a slow line slows the film and never blinds it; it stops when
   the page is not seen. */

const USUAL = 10;

export class Cine {
  constructor({ pane, changed }) {
    this.pane = pane;
    this.changed = changed;
    this.rate = USUAL;
    this.playing = false;
    this.due = 0;
    document.addEventListener("visibilitychange", () => document.hidden && this.stop());
  }

  /* The object's own speed, where it says one that the page offers something near to. */
  recommended() {
    const { image } = this.pane();
    const own = image && image.kind === "image" ? image.fps : undefined;
    // The speed of a loop is not that of the scan that is looked at next; what a person chose is.
    const asked = own || this.chosen || USUAL;
    const select = document.getElementById("vitesse");
    const offered = [...select.options].map((it) => Number(it.value));
    this.rate = offered.reduce((best, it) => (Math.abs(it - asked) < Math.abs(best - asked) ? it : best));
    select.value = String(this.rate);
  }

  setRate(rate) {
    this.chosen = rate;
    this.rate = rate;
  }

  toggle() {
    if (this.playing) this.stop();
    else if (this.pane().images.length > 1) {
      this.playing = true;
      this.due = performance.now() + 1000 / this.rate;
      this.changed();
      this.next();
    }
  }

  stop() {
    if (!this.playing) return;
    this.playing = false;
    cancelAnimationFrame(this.frame);
    this.changed();
  }

  /* Look at each frame of the screen whether it is time, and whether the next image is here. */
  next() {
    this.frame = requestAnimationFrame((now) => {
      if (!this.playing) return;
      const pane = this.pane();
      const following = (pane.index + 1) % pane.images.length;
      if (now >= this.due && pane.ready(following)) {
        this.due = Math.max(this.due + 1000 / this.rate, now);
        pane.forward = true;
        pane.show(following);
      }
      this.next();
    });
  }
}
