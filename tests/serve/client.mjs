// The official JavaScript client: whole answers, streams and errors. Prints one JSON object.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: process.argv[3], maxRetries: 0 });
const ask = { model: "tiny", seed: 1, messages: [{ role: "user", content: "Say something." }] };

const whole = await client.chat.completions.create(ask);
let streamed = "";
let last = null;
const stream = await client.chat.completions.create({
  ...ask,
  stream: true,
  stream_options: { include_usage: true },
});
for await (const chunk of stream) {
  streamed += chunk.choices[0]?.delta.content ?? "";
  last = chunk;
}
const models = [];
for await (const model of client.models.list()) models.push(model.id);
let refusal = null;
try {
  await client.chat.completions.create({ ...ask, temperature: 3 });
} catch (error) {
  refusal = { kind: error.constructor.name, status: error.status, message: error.message };
}
const text = await client.completions.create({ model: "tiny", prompt: "Say something." });
console.log(
  JSON.stringify({
    whole: whole.choices[0].message.content,
    sent: whole.alignpro.sent,
    streamed,
    usage: last.usage,
    models,
    refusal,
    text: text.choices[0].text,
  }),
);
