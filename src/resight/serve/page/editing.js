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

/** Another object for images, asked for in a dialog. */
export async function move(images, done) {
  const one = images.length === 1;
  const field = objectField(one ? "It shows" : "They show", { value: one ? images[0].object ?? "" : "", placeholder: "leave empty for no name" });
  const to = await question(one ? "Move this image" : `Move ${images.length} images`, field.element, {
    yes: "Move", read: () => ({ object: field.input.value.trim() || null }),
  });
  const moved = to ? images.filter((image) => image.object !== to.object) : [];
  if (!moved.length) return;
  try {
    await each(moved, (image) => set(image, to.object));
    notice(`${one ? "Moved" : `${count(moved.length, "image")} moved`} to ${to.object ?? "images without a name"}.`, {
      undo: async () => { await each(moved, (image) => set(image, image.object)).catch(trouble); done(); },
    });
  } catch (problem) {
    trouble(problem);
  }
  done();
}

const set = (image, object) => ask(`v1/images/${image.image}`, { method: "PATCH", json: { object } });

/** One after the other: each is durable, and a service that is asked by others has room for them. */
async function each(images, task) {
  for (const image of images) await task(image);
}

/**
 * Removes images. The gallery forgets them for good, so they are hidden at once and removed when
 * the time for "Undo" is over.
 */
export function remove(images, elements, done) {
  const hide = (is) => { for (const element of elements) element.hidden = is; };
  hide(true);
  notice(images.length === 1 ? "Removed." : `${count(images.length, "image")} removed.`, {
    undo: () => hide(false),
    then: async (leaving) => {
      const drop = (image) => ask(`v1/images/${image.image}`, { method: "DELETE", keepalive: leaving });
      try {
        if (leaving) await Promise.all(images.map(drop)); // no time for one after the other
        else await each(images, drop);
        done();
      } catch (problem) {
        hide(false);
        trouble(problem);
      }
    },
  });
}

/** The two buttons of an image that may be edited. */
export function editButtons(image, element, done) {
  const name = image.name ?? `image ${image.image}`;
  return [
    button(`Move ${name}`, "move", () => move([image], done), { bare: true, class: "bare", title: "Move" }),
    button(`Remove ${name}`, "bin", () => remove([image], [element], done), { bare: true, class: "bare", title: "Remove" }),
  ];
}
