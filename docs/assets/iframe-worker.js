// Search without a server. A page that was opened from a disk may start no worker, so the search
// worker's script runs in a hidden frame instead and is spoken to in the same way.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(path) {
      super();
      const address = new URL(path, document.baseURI).href;
      this.waiting = [];
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      const inside = frame.contentWindow;
      // What the script posts comes out here, and what is posted to it arrives in there.
      inside.postMessage = (data) => {
        const event = new MessageEvent("message", { data });
        this.dispatchEvent(event);
        if (this.onmessage) this.onmessage(event);
      };
      inside.importScripts = (...scripts) =>
        scripts.reduce(
          (before, source) => before.then(() => load(inside, source, address)),
          Promise.resolve(),
        );
      load(inside, address, address).then(() => {
        this.inside = inside;
        this.waiting.splice(0).forEach((data) => this.postMessage(data));
      });
    }

    postMessage(data) {
      if (!this.inside) this.waiting.push(data);
      else this.inside.dispatchEvent(new this.inside.MessageEvent("message", { data }));
    }

    terminate() {}
  };

  function load(inside, source, base) {
    return new Promise((done, failed) => {
      const script = inside.document.createElement("script");
      script.src = new URL(source, base).href;
      script.onload = done;
      script.onerror = failed;
      inside.document.documentElement.append(script);
    });
  }
}
