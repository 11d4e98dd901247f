#!/usr/bin/env python3
"""A model folder with a chat template: the server reads what jinja2 and the tokenizer make of the same messages.

    python3 tests/end_to_end/chat_test.py --server-binary build/server/switchyard-server --model FOLDER
"""

import os
import pathlib
import sys
import tempfile

import grpc
import tokenizers

import serving
from serving import check, code_of, pb

sys.path.insert(0, str(serving.ROOT / "tests" / "engine" / "jinja"))
import reference  # noqa: E402

TEMPLATE = """{{ bos_token }}{% for message in messages %}
{% if message.role not in ("system", "user", "assistant") %}
{{ raise_exception("unknown role " + message.role) }}
{% endif %}
{{ "### " + message.role | capitalize + ":\\n" + message.content | trim + "\\n" }}
{% endfor %}
{% if add_generation_prompt %}
{{ "### " ~ (speaker or "Assistant") ~ ":" }}
{% endif %}
"""


def folder_with_template(model, template):
    folder = pathlib.Path(tempfile.mkdtemp(prefix="switchyard-chat-"))
    for file in pathlib.Path(model).iterdir():
        if file.is_file() and file.name not in ("chat_template.jinja", "tokenizer_config.json"):
            os.link(file, folder / file.name) if os.stat(folder).st_dev == file.stat().st_dev else (folder / file.name).write_bytes(file.read_bytes())
    (folder / "chat_template.jinja").write_text(template)
    (folder / "tokenizer_config.json").write_text('{"bos_token": "<s>", "eos_token": {"content": "</s>"}}')
    return folder


def chat(messages, **fields):
    return pb.ChatPrompt(messages=[pb.ChatMessage(role=role, content=content) for role, content in messages], **fields)


def compare_with_reference(server, folder):
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    env = reference.environment()
    conversations = [
        [("user", "And the LORD said unto Moses,")],
        [("system", "  Be brief. "), ("user", "Grüße 世界 😀"), ("assistant", "Hello"), ("user", "again\n\n")],
    ]
    for messages in conversations:
        variables = {"messages": [{"role": role, "content": content} for role, content in messages], "tools": None,
                     "documents": None, "add_generation_prompt": True, "bos_token": "<s>", "eos_token": "</s>"}
        text, error = reference.render(env, TEMPLATE, variables)
        assert error is None, error
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        request = {"max_tokens": 8, "temperature": 0, "seed": 1}
        by_chat = server.inference.Generate(pb.GenerateRequest(chat=chat(messages), **request))
        by_ids = server.inference.Generate(pb.GenerateRequest(token_ids=pb.TokenIds(ids=ids), **request))
        check(by_chat.prompt.prompt_tokens == len(ids), f"a chat of {len(messages)} messages has the {len(ids)} tokens of the reference")
        check(by_chat.choices[0].token_ids == by_ids.choices[0].token_ids, "and the answer to these tokens")


def check_errors(server):
    def answer(**fields):
        return code_of(lambda: server.inference.Generate(pb.GenerateRequest(max_tokens=1, **fields)))

    code, text = answer(chat=chat([("stranger", "x")]))
    check(code == grpc.StatusCode.INVALID_ARGUMENT and text == "the chat template refuses the messages: unknown role stranger", "the template's message reaches the client")
    code, text = answer(chat=chat([("user", "x")], template_kwargs="{"))
    check(code == grpc.StatusCode.INVALID_ARGUMENT and text.startswith("chat.template_kwargs"), "bad JSON names its field")


def check_without_usable_template(args):
    folder = folder_with_template(args.model, "{% include 'x' %}")
    with serving.Server(serving.argparse.Namespace(**{**vars(args), "model": str(folder)})) as server:
        check(not server.inference.GetModel(pb.GetModelRequest()).has_chat_template, "a template that cannot be used is none")
        check(any("chat_template_refused" in line and "line 1: unknown or unsupported statement 'include'" in line for line in server.log), "the log says why")
        code, _ = code_of(lambda: server.inference.Generate(pb.GenerateRequest(chat=chat([("user", "x")]))))
        check(code == grpc.StatusCode.FAILED_PRECONDITION, "a chat fails its precondition")
        server.inference.Generate(pb.GenerateRequest(text="text", max_tokens=1))


def main():
    args = serving.arguments(__doc__)
    folder = folder_with_template(args.model, TEMPLATE)
    with serving.Server(serving.argparse.Namespace(**{**vars(args), "model": str(folder)})) as server:
        check(server.inference.GetModel(pb.GetModelRequest()).has_chat_template, "the model has a chat template")
        compare_with_reference(server, folder)
        check_errors(server)
        check(server.wait_until_idle(), "nothing is left")
    check_without_usable_template(args)


if __name__ == "__main__":
    main()
