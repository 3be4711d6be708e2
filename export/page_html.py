"""What a browser shows of export/page.py: one form, and answers as they come."""

# Nothing is loaded from, or sent to, any other place.
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; connect-src 'self';"
    " form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)

# {{usual}}: the options as the model was measured, a JSON object.
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Ask the model</title>
<style>
  body { font: 16px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 60em; padding: 0 1em; color: #1a1a1a }
  textarea { width: 100%; box-sizing: border-box; font: inherit; padding: .5em }
  fieldset { border: 0; padding: 0; margin: .5em 0; display: flex; flex-wrap: wrap; gap: .5em 1.5em; align-items: end }
  label { display: inline-flex; flex-direction: column; font-size: .85em; color: #555 }
  input[type=number] { width: 6em } input, select, button { font: inherit }
  button { padding: .3em 1.5em }
  #answers { display: flex; flex-wrap: wrap; gap: 1em; margin-top: 1em }
  figure { margin: 0 } figcaption { font-size: .8em; color: #555 }
  img { width: 160px; image-rendering: pixelated; display: block }
  .error { color: #a00 }
</style>
<h1>Ask the model</h1>
<form>
  <textarea name="prompt" rows="2" placeholder="what the picture should show" autofocus></textarea>
  <fieldset>
    <label>wanted<select name="task">
      <option value="">a picture, or of a picture words</option>
      <option value="text">words that go on from these</option>
    </select></label>
    <label>picture to describe or change<input name="image" type="file" accept="image/png,image/jpeg,image/webp"></label>
  </fieldset>
  <fieldset>
    <label>pictures<input name="pictures" type="number" value="4" min="1" max="64"></label>
    <label>guidance<input name="guidance_scale" type="number" step="any"></label>
    <label>solver steps<input name="num_solver_steps" type="number"></label>
    <label>longest answer, in tokens<input name="max_new_tokens" type="number"></label>
    <label>seed<input name="seed" type="number"></label>
    <button>Ask</button>
  </fieldset>
</form>
<div id="answers" aria-live="polite"></div>
<script>
const form = document.querySelector("form"), answers = document.getElementById("answers");
const usual = {{usual}};
for (const name in usual) form[name].value = usual[name];
let asking = null;

function show(answer) {
  const figure = document.createElement("figure");
  if (answer.image) {
    const picture = document.createElement("img"), caption = document.createElement("figcaption");
    picture.src = "data:image/png;base64," + answer.image;
    picture.alt = form.prompt.value;
    caption.textContent = "seed " + answer.seed;
    figure.append(picture, caption);
  } else {
    figure.textContent = answer.error || answer.text;
    if (answer.error) figure.className = "error";
  }
  answers.append(figure);
}

async function base64(file) {
  const url = await new Promise(done => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.readAsDataURL(file);
  });
  return url.slice(url.indexOf(",") + 1);
}

form.onsubmit = async event => {
  event.preventDefault();
  if (asking) asking.abort();
  const mine = asking = new AbortController();
  answers.replaceChildren();
  const asked = {prompt: form.prompt.value, task: form.task.value, pictures: form.pictures.valueAsNumber};
  for (const name in usual) if (form[name].value !== "") asked[name] = form[name].valueAsNumber;
  if (form.image.files.length) asked.image = await base64(form.image.files[0]);
  try {
    const response = await fetch("ask", {
      method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(asked), signal: mine.signal,
    });
    if (!response.ok) return show({error: "the model does not answer: " + response.status});
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let rest = "";;) {
      const {value, done} = await reader.read();
      if (done) break;
      const lines = (rest + value).split("\\n");
      rest = lines.pop();
      lines.filter(Boolean).map(JSON.parse).forEach(show);
    }
  } catch (error) {
    if (mine === asking) show({error: "the model does not answer; is python -m export.page still running?"});
  }
};
</script>
</html>
"""
