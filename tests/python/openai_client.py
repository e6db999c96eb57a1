"""Asks a worker by the stock `openai` client, as people's programs do: `openai_client.py URL MODEL KEY`."""

import json
import sys

import openai

base, model, key = sys.argv[1:]
client = openai.OpenAI(base_url=base, api_key=key, max_retries=0, timeout=120)
question = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]


def check(condition, what):
    if not condition:
        sys.exit(f"wrong: {what}")


def refused(kind, what, call):
    try:
        call()
    except kind as error:
        return error
    sys.exit(f"not refused as {kind.__name__}: {what}")


def chat(**more):
    options = {"model": model, "messages": question, "temperature": 0, "max_tokens": 40, **more}
    return client.chat.completions.create(**options)


check([listed.id for listed in client.models.list()] == [model], "the list of models")
check(client.models.retrieve(model).owned_by == model.split("/")[0], "one model")

# Chat, whole and streamed; the second time the prompt is in the cache.
whole = chat()
said = whole.choices[0].message.content
check("Paris" in said and whole.choices[0].finish_reason == "stop", whole)
check(whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens, whole.usage)
parts = list(chat(stream=True, stream_options={"include_usage": True}))
streamed = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
check(streamed == said, f"{streamed!r} is not {said!r}")
check(parts[-1].usage.prompt_tokens_details.cached_tokens > 0, parts[-1])
check(chat(max_completion_tokens=3, max_tokens=None).usage.completion_tokens == 3, "max_completion_tokens")
check("Paris" not in chat(stop=["Paris"]).choices[0].message.content, "stop")
check(chat(temperature=1, seed=7).choices == chat(temperature=1, seed=7).choices, "the same seed")
check(len(chat(n=3, temperature=1, seed=7, user="me").choices) == 3, "n")

# Likelihoods, in both forms.
told = chat(logprobs=True, top_logprobs=2).choices[0].logprobs.content
check(bytes(byte for token in told for byte in token.bytes).decode() == said, "likelihoods of all tokens")
check(all(len(token.top_logprobs) == 2 and token.logprob <= 0 for token in told), told)
completed = client.completions.create(model=model, prompt="One, two, three,", max_tokens=6, temperature=0, logprobs=1)
check(completed.choices[0].finish_reason == "length", completed)
check("".join(completed.choices[0].logprobs.tokens) == completed.choices[0].text, completed)
streamed = client.completions.create(model=model, prompt="One, two, three,", max_tokens=6, temperature=0, stream=True)
check("".join(part.choices[0].text for part in streamed) == completed.choices[0].text, "a streamed completion")

# A form.
schema = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}, "large": {"type": "boolean"}},
    "required": ["city", "large"],
    "additionalProperties": False,
}
formed = chat(response_format={"type": "json_schema", "json_schema": {"name": "city", "schema": schema, "strict": True}})
answer = json.loads(formed.choices[0].message.content)
check(set(answer) == {"city", "large"} and isinstance(answer["large"], bool), answer)

# Functions: one that must be called, and what it said.
tools = [{"type": "function", "function": {"name": "weather", "description": "The weather of a city", "parameters": schema}}]
choice = {"type": "function", "function": {"name": "weather"}}
called = chat(tools=tools, tool_choice=choice, parallel_tool_calls=False, max_tokens=80).choices[0]
check(called.finish_reason == "tool_calls" and called.message.tool_calls[0].function.name == "weather", called)
check(set(json.loads(called.message.tool_calls[0].function.arguments)) == {"city", "large"}, called)
deltas = [
    part.choices[0].delta
    for part in chat(tools=tools, tool_choice="required", parallel_tool_calls=False, max_tokens=80, stream=True)
    if part.choices
]
check([call.function.name for delta in deltas for call in delta.tool_calls or []] == ["weather"], deltas)
said = {"role": "tool", "tool_call_id": called.message.tool_calls[0].id, "content": "It rains."}
check(chat(messages=[*question, called.message, said], tools=tools, max_tokens=5).choices, "a tool's result")

# Errors as the client knows them.
error = refused(openai.NotFoundError, "another model", lambda: chat(model="nobody/nothing"))
check(error.code == "model_not_found", error)
error = refused(openai.BadRequestError, "too long", lambda: chat(messages=[{"role": "user", "content": "x " * 9000}]))
check(error.code == "context_length_exceeded", error)
refused(openai.BadRequestError, "an unknown field", lambda: chat(extra_body={"top_k": 5}))
refused(openai.BadRequestError, "a schema", lambda: chat(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "string", "pattern": "("}}}))
refused(openai.BadRequestError, "embeddings of a model that generates", lambda: client.embeddings.create(model=model, input="x"))
error = refused(openai.InternalServerError, "too late", lambda: chat(extra_body={"timeout": 0.001}, max_tokens=400))
check(error.code == "deadline_exceeded", error)
wrong = openai.OpenAI(base_url=base, api_key="sk-wrong", max_retries=0)
refused(openai.AuthenticationError, "a wrong key", lambda: wrong.models.list())
print("all is as OpenAI has it")
