// The official npm client; arguments and output as in scripts/asking.py.
import OpenAI from "openai";

const asked = JSON.parse(process.argv[2]);
const names = process.argv.slice(3);
const client = new OpenAI({ baseURL: asked.base_url, apiKey: "none", maxRetries: 0 });
const system = { role: "system", content: "Answer in one word." };
const tool = { type: "function", function: { name: "look", parameters: { type: "object" } } };

function user(image = {}) {
  return {
    role: "user",
    content: [
      { type: "text", text: asked.question },
      { type: "image_url", image_url: { url: asked.image, ...image } },
    ],
  };
}

function create(messages = [user()], fields = {}) {
  return client.chat.completions.create({ model: asked.model, messages, ...fields });
}

async function answer(made) {
  const completion = await made;
  const [choice] = completion.choices;
  return {
    text: choice.message.content,
    finish_reason: choice.finish_reason,
    tokens: completion.usage?.total_tokens,
  };
}

async function streamed() {
  const texts = [];
  for await (const chunk of await create(undefined, { stream: true })) {
    const text = chunk.choices[0]?.delta?.content;
    if (text) texts.push(text);
  }
  return { text: texts.join(""), pieces: texts.length };
}

async function models() {
  const found = [];
  for await (const one of client.models.list()) found.push(one.id);
  return { text: found.join(" ") };
}

async function atOnce() {
  const all = await Promise.all([1, 2, 3, 4].map(() => answer(create())));
  return all.at(-1);
}

const earlier = [{ role: "assistant", content: "3" }, { role: "user", content: "And the other?" }];
const cases = {
  whole: () => answer(create()),
  streamed,
  "at once": atOnce,
  models,
  greedy: () => answer(create(undefined, { temperature: 0 })),
  temperature: () => answer(create(undefined, { temperature: 0.7, seed: 1 })),
  system: () => answer(create([system, user()])),
  stop: () => answer(create(undefined, { stop: asked.stop })),
  detail: () => answer(create([user({ detail: "low" })])),
  history: () => answer(create([user(), ...earlier])),
  tools: () => answer(create(undefined, { tools: [tool] })),
};

const found = names.length ? {} : Object.keys(cases);
for (const name of names) {
  try {
    found[name] = await cases[name]();
  } catch (error) {
    const text = String(error.message).slice(0, 2000);
    found[name] = { error: { kind: error.constructor.name, text, status: error.status ?? null } };
  }
}
console.log(JSON.stringify(found));
