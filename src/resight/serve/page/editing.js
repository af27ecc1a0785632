// With a key that may write: add, move, remove. Each step can be taken back for a few seconds.

import { ask, query } from "./api.js";
import { button, count, h, quiet } from "./dom.js";
import { notice, question, trouble } from "./notices.js";

export const mayWrite = (gallery) => gallery.role === "write" || gallery.role === "admin";

let fields = 0;

/** An input for an object's name, completed from the gallery. */
export function objectField(label, { value = "", required = false, placeholder = "" } = {}) {
  const id = `object-${++fields}`;
  const names = h("datalist", { id: `${id}-names` });
  const complete = quiet(async () => {
    try {
      const found = await ask(query("v1/objects", { like: input.value.trim(), limit: 12 }));
      names.replaceChildren(...found.objects.map((o) => h("option", { value: o.object })));
    } catch {
      // names are a help only; what is typed counts
    }
  }, 150);
  const input = h("input", { id, value, required, placeholder, autocomplete: "off", oninput: complete,
    onfocus: complete });
  input.setAttribute("list", names.id); // the property cannot be set
  return { input, element: h("div", { class: "field" }, h("label", { for: id }, label), input, names) };
}

/** Adds photos to an object (null: a photo without a name); gives the images. */
export async function add(photos, object, done) {
  try {
    const images = [];
    for (const photo of photos) {
      const form = new FormData();
      form.append("photo", photo.file, photo.name);
      if (object) form.append("object", object);
      images.push(await ask("v1/images", { method: "POST", form }));
    }
    const fresh = images.filter((image) => !image.known);
    if (!fresh.length) {
      notice(`The gallery has this photo already, as ${images[0].object ?? "an image without a name"}.`);
    } else {
      notice(`${count(fresh.length, "photo")} added to ${object ?? "the gallery, without a name"}.`, {
        undo: async () => {
          for (const image of fresh) await ask(`v1/images/${image.image}`, { method: "DELETE" }).catch(trouble);
          done();
        },
      });
    }
    done();
  } catch (problem) {
    trouble(problem);
  }
}

/** "Is it in the gallery? Add it": the form below the photo that was searched with. */
export function addForm(photos, suggested, done) {
  const field = objectField("Add it to the gallery as", {
    value: suggested ?? "", required: true, placeholder: "a known name or a new one",
  });
  const send = h("button", { type: "submit", class: "quiet" }, "Add");
  return h("form", {
    class: "add-form",
    onsubmit: async (event) => {
      event.preventDefault();
      send.disabled = true; // twice pressed is once meant
      await add(photos, field.input.value.trim(), done);
      send.disabled = false;
    },
  }, field.element, send);
}

/** Another object for an image, asked for in a dialog. */
export async function move(image, done) {
  const field = objectField("It shows", { value: image.object ?? "", placeholder: "leave empty for no name" });
  const to = await question("Move this image", field.element, {
    yes: "Move", read: () => ({ object: field.input.value.trim() || null }),
  });
  if (!to || to.object === image.object) return;
  const set = (object) => ask(`v1/images/${image.image}`, { method: "PATCH", json: { object } });
  try {
    await set(to.object);
    notice(`Moved to ${to.object ?? "images without a name"}.`, {
      undo: async () => { await set(image.object).catch(trouble); done(); },
    });
    done();
  } catch (problem) {
    trouble(problem);
  }
}

/**
 * Removes an image. The gallery forgets it for good, so it is hidden at once and removed when the
 * time for "Undo" is over.
 */
export function remove(image, element, done) {
  element.hidden = true;
  notice("Removed.", {
    undo: () => { element.hidden = false; },
    then: async (leaving) => {
      try {
        await ask(`v1/images/${image.image}`, { method: "DELETE", keepalive: leaving });
        done();
      } catch (problem) {
        element.hidden = false;
        trouble(problem);
      }
    },
  });
}

/** The two buttons of an image that may be edited. */
export function editButtons(image, element, done) {
  const name = image.name ?? `image ${image.image}`;
  return [
    button(`Move ${name}`, "move", () => move(image, done), { bare: true, class: "bare", title: "Move" }),
    button(`Remove ${name}`, "bin", () => remove(image, element, done), { bare: true, class: "bare", title: "Remove" }),
  ];
}
