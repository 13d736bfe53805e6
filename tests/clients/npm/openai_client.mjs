// The official npm client; arguments and output as in scripts/asking.py.
import { readFileSync } from "node:fs";
import OpenAI from "openai";

const asked = JSON.parse(readFileSync(0, "utf8"));
const names = process.argv.slice(2);
const client = new OpenAI({ baseURL: asked.base_url, apiKey: "none", maxRetries: 0 });
const system = { role: "system", content: "Answer in one word." };
const schema = {
  type: "object",
  properties: { word: { type: "string" } },
  required: ["word"],
  additionalProperties: false,
};
const tool = { type: "function", function: { name: "look", parameters: schema } };
const form = { type: "json_schema", json_schema: { name: "seen", schema, strict: true } };

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

async function called() {
  const chosen = { type: "function", function: { name: "look" } };
  const made = await create(undefined, { tools: [tool], tool_choice: chosen });
  const [call] = made.choices[0].message.tool_calls;
  return { text: `${call.function.name} ${call.function.arguments}` };
}

async function calledInPieces() {
  const runner = client.chat.completions.stream({
    model: asked.model,
    messages: [user()],
    tools: [tool],
    tool_choice: "required",
  });
  const [call] = (await runner.finalChatCompletion()).choices[0].message.tool_calls;
  return { text: `${call.function.name} ${call.function.arguments}` };
}

async function several() {
  const made = await create(undefined, { n: 2, temperature: 0.7 });
  return { text: made.choices.map((one) => `${one.index}=${one.message.content}`).join(" ") };
}

async function logprobs() {
  const made = await create(undefined, { logprobs: true, top_logprobs: 2 });
  return { text: made.choices[0].logprobs.content.map((one) => one.token).join("") };
}

function respond(fields) {
  const content = [
    { type: "input_text", text: asked.question },
    { type: "input_image", image_url: asked.image, detail: "auto" },
  ];
  return client.responses.create({
    model: asked.model,
    input: [{ role: "user", content }],
    ...fields,
  });
}

async function response() {
  const format = { type: "json_schema", name: "seen", schema, strict: true };
  const made = await respond({ instructions: "Be short.", text: { format } });
  return { text: made.output_text };
}

async function responseInPieces() {
  const texts = [];
  for await (const event of await respond({ stream: true })) {
    if (event.type === "response.output_text.delta") texts.push(event.delta);
  }
  return { text: texts.join(""), pieces: texts.length };
}

const call = { name: "look", arguments: '{"word": "left"}' };
const afterATool = [
  { role: "assistant", content: null, tool_calls: [{ id: "c9", type: "function", function: call }] },
  { role: "tool", tool_call_id: "c9", content: "Nothing is there." },
];
const words = { role: "user", content: "What is two and two?" };
const twoImages = () => [{ ...user(), content: [...user().content, user().content[1]] }];
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
  tool: called,
  "tool streamed": calledInPieces,
  "tool result": () => answer(create([user(), ...afterATool], { tools: [tool] })),
  schema: () => answer(create(undefined, { response_format: form })),
  n: several,
  logprobs,
  images: () => answer(create(twoImages())),
  words: () => answer(create([words])),
  responses: response,
  "responses streamed": responseInPieces,
};

const found = {};
for (const name of names) {
  try {
    found[name] = await cases[name]();
  } catch (error) {
    const text = String(error.message).slice(0, 2000);
    found[name] = { error: { kind: error.constructor.name, text, status: error.status ?? null } };
  }
}
console.log(JSON.stringify({ cases: Object.keys(cases), found }));
