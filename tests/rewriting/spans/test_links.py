"""Addresses, paths, handles and tags, in letters of every script."""

from __future__ import annotations

import pytest

from alignpro_lite.rewriting.spans import protect
from tests.support.changed_spans import require_noticed


@pytest.mark.parametrize(
    ("prompt", "rewrite"),
    [
        (
            "see https://en.wikipedia.org/wiki/Foo_(bar)",
            "see https://en.wikipedia.org/wiki/Foo_(bar",
        ),
        ("see https://x.y/it's/a ok", "see https://x.y/it's/b ok"),
        ("https://ja.wikipedia.org/wiki/日本語 を", "https://ja.wikipedia.org/wiki/日本 を"),
        ("https://例子.公司/路径 ok", "https://例子.公司/路 ok"),
        ("www.x.y/z", "www.x.y/zz"),
        ("mailto:a@b.c?subject=x", "mailto:a@b.c?subject=y"),
        ("http://localhost:8080/a?b=c;d", "http://localhost:8081/a?b=c;d"),
        ("用户@例子.公司", "用户@例子.公"),
        ("ftp://u:p@h/x", "ftp://u:q@h/x"),
        ("open /home/用户/文件.txt", "open /home/用户/文档.txt"),
        ("请打开 /数据/报告.csv 并总结", "请打开 /数据/报表.csv 并总结"),
        ("请打开报告.docx", "请打开报表.docx"),
        ("D:\\数据\\报告.xlsx", "D:\\数据\\报表.xlsx"),
        ("~/a/b", "~/a/c"),
        ("./run", "./ran"),
        ("/etc/hosts:", "/etc/host:"),
        ("@bob hi", "@bab hi"),
        ("#tag", "#tog"),
        ("#日本", "#日中"),
        ("see [docs](https://x.y/a(b)).", "see [docs](https://x.y/a(c))."),
        ("http://[::1]:80/x", "http://[::1]:81/x"),
        ("https://x.y/a,b;c!d", "https://x.y/a,b;c!e"),
        ("x.com/a-b", "x.com/a-c"),
        ("a.b.c.org is", "a.b.d.org is"),
        ("读https://x.y/路径。", "读https://x.y/路。"),
        ("s3://b/k", "s3://b/l"),
        ("git@github.com:a/b.git", "git@github.com:a/c.git"),
        ("../x/y", "../x/z"),
        ("C:/Users/x", "C:/Users/y"),
        ("/mnt/c/My\\ Docs/a", "/mnt/c/My\\ Docs/b"),
        ("file:///etc/x", "file:///etc/y"),
        ("doi:10.1000/182", "doi:10.1000/183"),
    ],
)
def test_a_change_of_an_address_is_noticed(prompt, rewrite):
    """Regression: only a few quotes, plain URLs and a short list of units were known."""
    require_noticed(prompt, rewrite)


@pytest.mark.parametrize(
    ("prompt", "rewrite"),
    [
        ("edit .gitignore", "edit .gitattributes"),
        ("read .env.local first", "read .env.prod first"),
        ("convert .pdf to .docx", "convert .pdf to .odt"),
        ("use .NET", "use .NOT"),
    ],
)
def test_a_change_of_a_hidden_file_or_a_suffix_is_noticed(prompt, rewrite):
    """Regression: the full stop that a name begins with was taken for that of a sentence."""
    require_noticed(prompt, rewrite)


def test_a_full_stop_on_the_wrong_side_of_a_space_is_no_name():
    assert protect("what is love .explain it").broken_by("What is love? Explain it.") == ()
