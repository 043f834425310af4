"""Chat templates of every kind that published models have, each written for these tests."""

from __future__ import annotations

ROUND = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEMPLATES = {
    "plain": ROUND,
    "role between brackets": (
        "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|im_end|>\n' }}"
        "{% endfor %}{{ '<|assistant|>\n' if add_generation_prompt else eos_token }}"
    ),
    "trim": (
        "{{ bos_token }}{% for m in messages %}{{ '<|im_start|>' ~ m.role ~ '\n\n' }}"
        "{{ m.content | trim ~ '<|im_end|>' }}{% endfor %}<|im_start|>"
    ),
    "old thoughts": (
        "{% for m in messages %}{% set said = m.content %}"
        "{% if m.role == 'assistant' and '</think>' in said %}"
        "{% set said = said.split('</think>')[-1].lstrip('\n') %}{% endif %}"
        "<|im_start|>{{ m.role }}\n{{ said }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
    ),
    "last thought": (
        "{% set ns = namespace(last=messages | length - 1) %}{% for m in messages[::-1] %}"
        "{% if m.role == 'user' and m.content is string and not (m.content.startswith('<tool>')"
        " and m.content.endswith('</tool>')) and not ns.found %}{% set ns.found = true %}"
        "{% set ns.last = messages | length - 1 - loop.index0 %}{% endif %}{% endfor %}"
        "{%- for m in messages -%}"
        "{%- set thought = '' -%}{%- set said = m.content -%}"
        "{%- if '</think>' in m.content -%}"
        "{%- set thought = m.content.split('</think>')[0].rstrip('\n').split('<think>')[-1] -%}"
        "{%- set said = m.content.split('</think>')[-1].lstrip('\n') -%}{%- endif -%}"
        "{%- if m.role == 'assistant' and loop.index0 > ns.last and thought -%}"
        "{{ '<|im_start|>assistant\n<think>\n' + thought.strip('\n') + '\n</think>\n\n' + said }}"
        "{%- else -%}{{ '<|im_start|>' + m.role + '\n' + said }}{%- endif -%}"
        "{{ '<|im_end|>\n' }}{%- endfor -%}"
        "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>{% endif %}"
    ),
    "switch": (
        "{% set ns = namespace(think=true) %}{% for m in messages %}"
        "{% if '/no_think' in m.content %}{% set ns.think = false %}{% endif %}"
        "<|im_start|>{{ m.role }}\n{{ m.content.replace('/no_think', '') }}<|im_end|>\n{% endfor %}"
        "<|im_start|>assistant\n{{ '' if ns.think else '<think>\n\n</think>\n' }}"
    ),
    "generation": (
        "{% for m in messages %}{% if m.role == 'assistant' %}<|im_start|>assistant\n"
        "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}\n"
        "{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    ),
    "filters": (
        "{%- set asked = messages | selectattr('role', 'equalto', 'user') | list -%}"
        "{%- set others = messages | rejectattr('role', 'equalto', 'user') -%}"
        "{%- set others = others | map(attribute='content') | join('<|im_end|>') -%}"
        "[INST]{{ others | default('<think>', true) }}"
        "{%- for m in asked -%}{{ m.content | replace('\n\n', '<|im_end|>') | trim }}[/INST]"
        "{%- endfor -%}"
    ),
    "macro": (
        "{% macro say(m, end='<|im_end|>') %}{{ m.content ~ end }}{% endmacro %}"
        "{% set names = {'user': '<|user|>', 'assistant': '<|assistant|>'} %}"
        "{% for m in messages %}{{ names.get(m.role, '<|system|>') }}{{ say(m) | trim }}"
        "{% if loop.index > 8 %}{% break %}{% endif %}{% endfor %}{{ names['assistant'] }}"
    ),
    "layouts": (
        "{% set end = '<|{}|>'.format('im_end') %}{% for m in messages %}"
        "{{ '<|%s|>%s' % (m.role, m.content) }}{{ '%s%s' | format(end, '\n') }}{% endfor %}"
    ),
    "json": (
        "{% for m in messages %}<tool_call>{{ {'name': m.role, 'text': m.content} | tojson }}"
        "</tool_call>{{ m | tojson(indent=2, ensure_ascii=true) }}<|im_end|>{% endfor %}"
    ),
    "lengths": (
        "{% for m in messages %}{% if m.content | length > 12 %}<|im_start|>long\n{% endif %}"
        "{{ m.content }}{% if m.content.strip() == '' or not m.content[0:1].isalpha() %}[INST]"
        "{% endif %}<|im_end|>{% endfor %}"
    ),
    "lines": (
        "{% for m in messages %}User: {{ m['content'].strip().replace('\r\n', '\n')"
        ".replace('\n\n', '\n') }}\n{% endfor %}Falcon:"
    ),
    "constants in variables": (
        "{%- set think, stop = '<think>', '</think>' -%}{%- for m in messages -%}"
        "{%- if stop in m.content and m.content.rsplit(stop, 1)[1] -%}"
        "<|im_start|>{{ think }}{{ stop }}"
        "{%- endif -%}{{ m.content.split(stop) | last }}<|im_end|>{%- endfor -%}"
    ),
    "date": (
        "{{ strftime_now('%Y') }} <|im_start|>{% for m in messages %}{{ m.content }}{% endfor %}"
    ),
    "tool lists": (
        "{% if tools is not none or documents %}<tool_call>{% endif %}{% for m in messages %}"
        "{{ [m.content, '<|im_end|>'] | join('\n') }}{% endfor %}"
    ),
}
"""By what is special about them."""

MARKERS = [
    "<|im_start|>",
    "<|im_end|>",
    "<|user|>",
    "<|assistant|>",
    "<|system|>",
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "[INST]",
    "[/INST]",
]
"""What they write."""

FRAGMENTS = [
    *MARKERS,
    "<|im_",
    "end|>",
    "think>",
    "<",
    "/no_think",
    "im_end",
    "user",
    " ",
    "\n",
    "\n\n",
    "hello",
    "Café 東京 😀",
    "it's 42",
]
"""What a hostile conversation is made of; the first ones are whole markers."""
