"""OpenAI's interface with PyPI's `openai`: the texts of Generate, streams, chats, log-probabilities, errors.

    python3 tests/end_to_end/openai_test.py --server-binary build/server/switchyard-server --model FOLDER
"""

import argparse
import asyncio
import concurrent.futures

import openai
from chat_test import TEMPLATE, folder_with_template
from http_client import HttpServer, raises
from serving import arguments, check, pb

MODEL = "switchyard-demo"
PROMPT = "And the LORD said unto Moses,"


def generate(server, **fields):
    return server.inference.Generate(pb.GenerateRequest(**fields))


def check_models(client):
    models = client.models.list().data
    check([model.id for model in models] == [MODEL] and models[0].object == "model", "the model is listed")
    check(client.models.retrieve(MODEL).id == MODEL, "and found by name")
    raises(openai.NotFoundError, lambda: client.models.retrieve("other/model"), "other/model", MODEL)


def check_same_as_grpc(server, client):
    common = {"max_tokens": 24, "temperature": 0.7, "top_p": 0.9, "seed": 7}
    extras = {"top_k": 20, "min_p": 0.01, "repetition_penalty": 1.1, "min_tokens": 2}
    own = generate(server, text=PROMPT, **common, **extras, presence_penalty=0.3, frequency_penalty=0.1, n=3)
    reply = client.completions.create(
        model=MODEL, prompt=PROMPT, **common, presence_penalty=0.3, frequency_penalty=0.1, n=3, extra_body=extras
    )
    check([c.text for c in reply.choices] == [c.text for c in own.choices], "three choices have the texts of Generate")
    check([c.index for c in reply.choices] == [0, 1, 2], "in order")
    usage = (reply.usage.prompt_tokens, reply.usage.completion_tokens)
    check(usage == (own.usage.prompt_tokens, own.usage.completion_tokens), f"usage is the same: {usage}")
    check(reply.id.startswith("cmpl-") and reply.object == "text_completion" and reply.model == MODEL, "it says what it is")

    ids = server.inference.Tokenize(pb.TokenizeRequest(text=PROMPT)).token_ids
    by_ids = client.completions.create(model=MODEL, prompt=list(ids), **common)
    by_text = client.completions.create(model=MODEL, prompt=PROMPT, **common)
    check(by_ids.choices[0].text == by_text.choices[0].text, "token ids are a prompt, too")

    texts = [PROMPT, "In the beginning", "The "]
    together = client.completions.create(model=MODEL, prompt=texts, n=2, **common)
    alone = [client.completions.create(model=MODEL, prompt=text, n=2, **common) for text in texts]
    expected = [choice.text for reply in alone for choice in reply.choices]
    check([c.text for c in together.choices] == expected, "a list of prompts has the answers of each alone")
    check([c.index for c in together.choices] == list(range(6)), "numbered through")
    check(together.usage.total_tokens == sum(reply.usage.total_tokens for reply in alone), "its usage is their sum")
    mixed = client.completions.create(model=MODEL, prompt=[list(ids), list(ids)], **common)
    check([c.text for c in mixed.choices] == [by_ids.choices[0].text] * 2, "so has a list of lists of token ids")

    short = client.completions.create(model=MODEL, prompt=PROMPT, seed=1)
    check(short.usage.completion_tokens == 16, "without max_tokens there are 16, as with OpenAI")


def check_stops(server, client):
    greedy = {"model": MODEL, "prompt": PROMPT, "max_tokens": 40, "temperature": 0}
    whole = client.completions.create(**greedy)
    check(whole.choices[0].finish_reason == "length", "max_tokens ends with length")
    word = whole.choices[0].text.split()[3]
    stopped = client.completions.create(**greedy, stop=[word])
    check(
        stopped.choices[0].finish_reason == "stop" and stopped.choices[0].text == whole.choices[0].text.split(word)[0],
        f"the stop string {word!r} ends with stop and is left out",
    )
    kept = client.completions.create(**greedy, stop=word, extra_body={"include_stop_str_in_output": True})
    check(kept.choices[0].text == stopped.choices[0].text + word, "or kept, if asked for")
    ids = generate(server, text=PROMPT, max_tokens=40, temperature=0).choices[0].token_ids
    by_id = client.completions.create(**greedy, extra_body={"stop_token_ids": [ids[5]]})
    check(by_id.usage.completion_tokens == list(ids).index(ids[5]) + 1, "a stop token id ends where it comes")
    banned = client.completions.create(**greedy, logit_bias={str(ids[0]): -100})
    check(banned.choices[0].text != whole.choices[0].text, "logit_bias moves the answer")


def check_logprobs(server, client):
    own = generate(server, text=PROMPT, max_tokens=5, temperature=0, logprobs=3).choices[0]
    details = [(detail.logprob, [top.logprob for top in detail.top_logprobs]) for detail in own.details]
    reply = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=5, temperature=0, logprobs=3).choices[0]
    near = lambda a, b: abs(a - b) < 1e-6
    check(
        all(near(a, b) for a, (b, _) in zip(reply.logprobs.token_logprobs, details, strict=True)),
        "log-probabilities are those of Generate",
    )
    check("".join(reply.logprobs.tokens) == reply.text, f"of the tokens {reply.logprobs.tokens}")
    check(all(len(top) == 3 for top in reply.logprobs.top_logprobs), "with the three most likely ones")
    offsets = [sum(map(len, reply.logprobs.tokens[:i])) for i in range(5)]
    check(reply.logprobs.text_offset == offsets, "and where they begin")
    plain = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=5, temperature=0).choices[0]
    check(plain.logprobs is None and plain.text == reply.text, "without asking there are none")
    streamed = client.completions.create(
        model=MODEL, prompt=PROMPT, max_tokens=5, temperature=0, logprobs=3, stream=True
    )
    parts = [event.choices[0].logprobs for event in streamed if event.choices[0].logprobs]
    check([t for part in parts for t in part.tokens] == reply.logprobs.tokens, "a stream has the same tokens")
    check([o for part in parts for o in part.text_offset] == offsets, "and offsets")


def check_streams(client):
    common = {"model": MODEL, "prompt": PROMPT, "max_tokens": 30, "temperature": 0.8, "seed": 3, "n": 2}
    whole = client.completions.create(**common)
    texts, reasons, ids = ["", ""], {}, set()
    for event in client.completions.create(**common, stream=True):
        ids.add(event.id)
        check_quietly(len(event.choices) == 1 and event.usage is None, event)
        choice = event.choices[0]
        texts[choice.index] += choice.text
        if choice.finish_reason:
            reasons[choice.index] = choice.finish_reason
    check(texts == [c.text for c in whole.choices], "a stream is the same text in pieces")
    check(reasons == {0: "length", 1: "length"} and len(ids) == 1, "each choice ends once, under one id")
    events = list(client.completions.create(**common, stream=True, stream_options={"include_usage": True}))
    check(events[-1].choices == [] and events[-1].usage == whole.usage.model_copy(update={
        "prompt_tokens_details": events[-1].usage.prompt_tokens_details}), "include_usage adds it at the end")
    check(all(event.usage is None for event in events[:-1]), "and nowhere else")


def check_quietly(condition, what):
    if not condition:
        check(False, str(what))


def check_chat(server, client):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": PROMPT}]
    common = {"model": MODEL, "messages": messages, "temperature": 0.7, "seed": 5}
    own = generate(
        server,
        chat=pb.ChatPrompt(messages=[pb.ChatMessage(**message) for message in messages]),
        temperature=0.7,
        seed=5,
        max_tokens=20,
    )
    reply = client.chat.completions.create(**common, max_completion_tokens=20)
    message = reply.choices[0].message
    check((message.role, message.content) == ("assistant", own.choices[0].text), "a chat has the answer of Generate")
    check(reply.usage.prompt_tokens == own.prompt.prompt_tokens, "to the same prompt")
    check(reply.id.startswith("chatcmpl-") and reply.object == "chat.completion", "it says what it is")
    parts = [dict(m, content=[{"type": "text", "text": m["content"]}]) for m in messages]
    again = client.chat.completions.create(**{**common, "messages": parts}, max_tokens=20)
    check(again.choices[0].message.content == message.content, "content in parts is the same content")

    events = list(client.chat.completions.create(**common, max_tokens=20, stream=True))
    check(events[0].choices[0].delta.role == "assistant", "a stream begins with the role")
    check("".join(e.choices[0].delta.content or "" for e in events) == message.content, "and has the same text")
    check(events[-1].choices[0].finish_reason == "length", "and says why it ends")

    scored = client.chat.completions.create(**common, max_tokens=4, logprobs=True, top_logprobs=2).choices[0]
    content = scored.logprobs.content
    check(len(content) == 4 and all(len(token.top_logprobs) == 2 for token in content), "log-probabilities of a chat")
    text = b"".join(bytes(token.bytes) for token in content).decode()
    check(text == scored.message.content == "".join(token.token for token in content), "with the bytes of each token")

    speaker = client.chat.completions.create(
        **common, max_tokens=1, extra_body={"chat_template_kwargs": {"speaker": "Aaron, the brother of Moses"}}
    )
    check(speaker.usage.prompt_tokens > reply.usage.prompt_tokens, "variables reach the template")
    raises(
        openai.BadRequestError,
        lambda: client.chat.completions.create(model=MODEL, messages=[{"role": "stranger", "content": "x"}]),
        "the chat template refuses the messages: unknown role stranger",
    )


def check_errors(server, client):
    def refused(*words, kind=openai.BadRequestError, **fields):
        fields = {"model": MODEL, "prompt": "x", "max_tokens": 1} | fields
        return raises(kind, lambda: client.completions.create(**fields), *words)

    error = refused("temperature is 3", "0 to 2", temperature=3)
    check((error.param, error.type, error.status_code) == ("temperature", "invalid_request_error", 400), "it names it")
    refused("max_tokens", max_tokens=100_000)
    check(refused("prompt", prompt="").param == "prompt", "a prompt that is empty is named")
    refused("prompt[1]", prompt=["a", 3])
    refused("stop[1]", stop=["a", "b" * 300])
    refused("n is 99", n=99)
    refused("echo", echo=True)
    refused("best_of", best_of=3)
    refused("no_such_field", extra_body={"no_such_field": 1})
    refused("use at most 64", prompt=["a"] * 65)
    refused("other", model="other", kind=openai.NotFoundError)
    with_tools = {"model": MODEL, "messages": [{"role": "user", "content": "x"}], "tool_choice": "required"}
    raises(openai.BadRequestError, lambda: client.chat.completions.create(**with_tools), "tool_choice")
    stream = lambda: list(client.completions.create(model=MODEL, prompt="x", temperature=-1, stream=True))
    raises(openai.BadRequestError, stream, "temperature")

    reply = client.completions.with_raw_response.create(
        model=MODEL, prompt="x", max_tokens=1, extra_headers={"x-request-id": "my-own.1"}
    )
    check(reply.headers["x-request-id"] == "my-own.1" and reply.parse().id == "cmpl-my-own.1", "x-request-id comes back")
    reply = client.completions.with_raw_response.create(model=MODEL, prompt="x", max_tokens=1)
    check(reply.headers["x-request-id"].startswith("req-"), "or one is made")

    json = "application/json"
    for what, status, path, body, headers, method in [
        ("no JSON", 400, "/v1/completions", b"{", {}, "POST"),
        ("no object", 400, "/v1/completions", b"[]", {}, "POST"),
        ("a key twice", 400, "/v1/completions", b'{"prompt":"a","prompt":"b"}', {}, "POST"),
        ("not a number", 400, "/v1/completions", b'{"prompt":"a","temperature":NaN}', {}, "POST"),
        ("no prompt", 400, "/v1/completions", {"model": MODEL}, {}, "POST"),
        ("no messages", 400, "/v1/chat/completions", {"model": MODEL}, {}, "POST"),
        ("JSON too deep", 400, "/v1/completions", b"[" * 100_000, {}, "POST"),
        ("a form", 415, "/v1/completions", b"{}", {"Content-Type": "application/x-www-form-urlencoded"}, "POST"),
        ("a compressed body", 415, "/v1/completions", b"{}", {"Content-Encoding": "gzip"}, "POST"),
        ("another path", 404, "/v1/embeddings", b"{}", {"Content-Type": json}, "POST"),
        ("another method", 405, "/v1/completions", None, {}, "GET"),
        ("a body too large", 413, "/v1/completions", b"x" * (9 << 20), {}, "POST"),
    ]:
        got, _, answer = server.post(path, body, headers, method)
        check(got == status and answer["error"]["message"], f"{what}: {got} {answer['error']['message'][:100]}")


def check_crowd(server, client):
    def text(seed, stream):
        reply = client.completions.create(
            model=MODEL, prompt=PROMPT, max_tokens=32, temperature=0.9, seed=seed, stream=stream
        )
        return "".join(event.choices[0].text for event in reply) if stream else reply.choices[0].text

    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        streamed = list(pool.map(lambda seed: text(seed, True), range(64)))
    check(streamed == [text(seed, False) for seed in range(64)], "64 streams at once have each its own text")
    check(len(set(streamed)) > 32, "which differ")


async def check_async(server):
    async with server.client(openai.AsyncOpenAI) as client:
        common = {"model": MODEL, "prompt": PROMPT, "max_tokens": 16, "temperature": 0.9}

        async def streamed(seed):
            events = await client.completions.create(**common, seed=seed, stream=True)
            return "".join([event.choices[0].text async for event in events])

        texts = await asyncio.gather(*[streamed(seed) for seed in range(16)])
        whole = await asyncio.gather(*[client.completions.create(**common, seed=seed) for seed in range(16)])
    check(texts == [reply.choices[0].text for reply in whole], "asyncio gets the same texts, streamed and whole")


def main():
    args = arguments(__doc__)
    folder = folder_with_template(args.model, TEMPLATE)
    named = argparse.Namespace(**{**vars(args), "model": str(folder)})
    with HttpServer(named, f"--served-model-name={MODEL}") as server:
        with server.client() as client:
            check_models(client)
            check_same_as_grpc(server, client)
            check_stops(server, client)
            check_logprobs(server, client)
            check_streams(client)
            check_chat(server, client)
            check_errors(server, client)
            check_crowd(server, client)
        asyncio.run(check_async(server))
        check(server.wait_until_idle(), "nothing is left")
        check(server.metric("switchyard_internal_errors_total") == 0, "and nothing went wrong inside")
    with HttpServer(args) as server, server.client() as client:
        messages = [{"role": "user", "content": "x"}]
        error = raises(
            openai.BadRequestError, lambda: client.chat.completions.create(model=MODEL, messages=messages), "template"
        )
        check(error.code == "no_chat_template", "a model without a template refuses chats by name")


if __name__ == "__main__":
    main()
