"""The chat page, in a real browser."""

from __future__ import annotations

import re
import shutil
import time
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from alignpro_lite import AlignedModel, Request, Sampling
from alignpro_lite.reward.reward import CallableScorer, Reward
from alignpro_lite.serve.admission import Limits
from alignpro_lite.serve.app import model_app
from alignpro_lite.serve.asked import Usual
from alignpro_lite.serve.completions import ServedModel
from alignpro_lite.serve.guarding import Rules
from tests.support.scripted_models import FakePrompter
from tests.support.served import served

KEY = "sk-0123456789abcdef"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


REWRITE = "Say something about the sky. Answer in one sentence."
SHOW = """(turns, text) => {
    const node = make("div", "text");
    turns.append(node);
    show(node, text);
}"""
CONTROLS = ", ".join(f"{kind}:visible" for kind in ("button", "input", "select", "textarea"))
NAMES = """nodes => nodes.map(
    node => node.textContent.trim() || node.labels?.[0]?.textContent.trim() || ""
)"""
NARROW = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser():
    """A browser of this machine, driven by playwright."""
    playwright = pytest.importorskip("playwright.sync_api")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("no browser is installed: there is no chromium and no chrome")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def server(tiny_model):
    with serving(tiny_model, reward=None) as running:
        yield running


@pytest.fixture(scope="module")
def server_with_reward(tiny_model):
    length = CallableScorer("tests.support.reward_functions:length", "length")
    with serving(tiny_model, Reward([length], {"length": 1.0})) as running:
        yield running


def serving(tiny_model, reward):
    """A server whose prompter brings no λ, as those that come with the package."""
    usual = Request(max_tokens=12, sampling=Sampling(temperature=0))
    prompter: Any = FakePrompter([REWRITE], strength=None)
    model = AlignedModel(tiny_model.target, prompter, tiny_model.plan, reward)
    rules = Rules(key=KEY)
    return served(model_app(model, ServedModel("tiny", (), Usual(usual)), Limits(), rules))


@pytest.fixture
def page(browser, server):
    with opened(browser, server) as page:
        yield page


@contextmanager
def opened(browser, server):
    """The page, as an app opens it: with the key behind the address."""
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(20_000)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(f"{server.url}/#token={KEY}")
    page.get_by_text("tiny", exact=True).wait_for()
    yield page
    assert problems == []
    context.close()


def say(page, text):
    page.get_by_label("Your message").fill(text)
    page.keyboard.press("Enter")


def wait_for_the_answer(page):
    page.get_by_role("button", name="Send", exact=True).wait_for()


def test_a_chat_shows_the_answer_and_the_rewrite(page, server):
    say(page, "Say something about the sky.")
    wait_for_the_answer(page)
    answer = page.locator(".assistant .text").inner_text()
    body = {"model": "tiny", "messages": [{"role": "user", "content": REWRITE}]}
    asked = httpx.post(
        f"{server.url}/v1/chat/completions",
        json=body | {"alignpro": {"mode": "off"}},
        headers={"Authorization": f"Bearer {KEY}"},
    ).json()
    expected = asked["choices"][0]["message"]["content"]
    assert answer.split() == expected.split()
    page.get_by_text("Rewritten: show how").click()
    assert page.locator(".user ins").inner_text().strip() == "Answer in one sentence."
    assert "1 drawn" in page.locator(".user dl").inner_text()
    assert answer.split()[0] in page.locator("#heard").inner_text(), "read out by a screen reader"


def test_a_rewrite_can_be_edited_or_refused(page):
    page.get_by_label("Let me edit each rewrite first").check()
    say(page, "Say something about the sky.")
    edited = page.get_by_label("What the model will get")
    edited.wait_for()
    assert edited.input_value() == REWRITE
    assert edited.evaluate("box => document.activeElement === box")
    edited.fill("Why is it blue?")
    page.get_by_role("button", name="Send this").click()
    wait_for_the_answer(page)
    assert "Sent as you edited it: Why is it blue?" in page.locator(".user").inner_text()
    say(page, "And at night?")
    page.get_by_role("button", name="Send my own words").click()
    wait_for_the_answer(page)
    assert "Sent in your own words" in page.locator(".user").last.inner_text()


@pytest.fixture
def long_answers(tiny_model, monkeypatch):
    """Answers so long and slow that a busy browser can stop one before its end."""

    def is_stop(token: int) -> bool:
        time.sleep(0.005)
        return False

    monkeypatch.setattr(tiny_model.target._model, "is_stop", is_stop)


def test_an_answer_can_be_stopped(page, long_answers):
    page.get_by_label("Longest answer, in tokens").fill("1500")
    say(page, "Say something about the sky.")
    page.locator(".assistant .text:not(:empty)").wait_for()
    page.keyboard.press("Escape")
    wait_for_the_answer(page)
    assert page.get_by_text("Stopped.").is_visible()


def test_a_new_chat_forgets_the_answer_under_way(page, long_answers):
    """Regression: what was said until then was the first turn of the new conversation."""
    length = page.get_by_label("Longest answer, in tokens")
    length.fill("1500")
    say(page, "Say something about the sky.")
    page.locator(".assistant .text:not(:empty)").wait_for()
    page.get_by_role("button", name="New chat").click()
    wait_for_the_answer(page)
    assert page.locator("#heard").inner_text() == "The conversation is forgotten."
    length.fill("4")
    with page.expect_request("**/v1/chat/completions") as asked:
        say(page, "Say something else.")
    assert asked.value.post_data_json["messages"] == [
        {"role": "user", "content": "Say something else."}
    ]
    wait_for_the_answer(page)


def test_lambda_counts_for_draws_alone(browser, server_with_reward):
    """Regression: a race ignored the slider, and a draw failed where it said "as trained"."""
    with opened(browser, server_with_reward) as page:
        slider = page.get_by_label("λ")
        assert slider.is_disabled()
        assert "without λ" in page.locator("#strength-hint").inner_text()
        for guard in ("drawn, in any case", "better beyond the noise"):
            page.get_by_label("Use a rewrite if it is").select_option(guard)
            assert slider.is_enabled()
            say(page, "Say something about the sky.")
            wait_for_the_answer(page)
            page.locator(".user summary").last.click()
            shown = page.locator(".user dl").last.inner_text()
            assert re.search(r"λ\s+0\.02\s", shown)
        page.get_by_label("Use a rewrite if it is").select_option("expected to be better")
        assert slider.is_disabled()
        say(page, "Say something about the sky.")
        wait_for_the_answer(page)
        assert page.get_by_role("alert").count() == 0


def test_without_a_reward_there_is_nothing_to_choose_by(page):
    assert page.get_by_label("λ").is_disabled()
    assert page.get_by_label("Rewrites to choose from").is_disabled()
    assert "--reward" in page.locator("#no-reward").inner_text()


def test_errors_are_shown_and_the_prompt_is_kept(page):
    page.get_by_label("Longest answer, in tokens").fill("9999999")
    say(page, "Say something about the sky.")
    problem = page.get_by_role("alert")
    problem.wait_for()
    assert "context" in problem.inner_text()
    assert page.get_by_label("Your message").input_value() == "Say something about the sky."


def test_a_missing_key_is_said_and_can_be_given(browser, server):
    page = browser.new_page()
    page.goto(server.url)
    page.get_by_text("The key is missing").wait_for()
    page.get_by_label("Key of the server").fill(KEY)
    page.keyboard.press("Tab")
    page.get_by_text("tiny", exact=True).wait_for()
    page.close()


def test_the_token_does_not_stay_in_the_address(page):
    assert KEY not in page.url


def test_what_a_model_writes_is_text(page):
    """Markup of an answer must not become part of the page."""
    html = "<img src=x onerror=alert(1)> **bold** `code`\n```html\n<b>x</b>\n```"
    page.locator("#turns").evaluate(SHOW, html)
    shown = page.locator("#turns > .text")
    assert shown.locator("img, b").count() == 0
    assert shown.locator("strong").inner_text() == "bold"
    assert shown.locator("pre").inner_text() == "<b>x</b>"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [{"width": 1280, "height": 800}, NARROW], ids=str)
def test_it_fits_the_window(browser, server, scheme, size):
    context = browser.new_context(color_scheme=scheme, viewport=size)
    page = context.new_page()
    page.goto(f"{server.url}/#token={KEY}")
    page.get_by_text("tiny", exact=True).wait_for()
    if size == NARROW:
        page.get_by_role("button", name="Settings").click()
    page.get_by_label("Let me edit each rewrite first").check()
    if size == NARROW:
        page.keyboard.press("Escape")
    say(page, "Say something about the sky. " * 20)
    page.get_by_label("What the model will get").wait_for()
    sizes = page.locator("html").evaluate("page => [page.scrollWidth, page.clientWidth]")
    assert sizes[0] == sizes[1] == size["width"]
    for part in ("#talk", "#write", "#prompt"):
        box = page.locator(part).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= size["width"]
    context.close()


def test_it_can_be_used_with_the_keyboard_alone(page):
    """Every control can be reached, and has a name."""
    names = page.locator(CONTROLS).evaluate_all(NAMES)
    assert len(names) > 8
    assert all(names)
    reached = set()
    for _ in range(len(names) + 4):
        page.keyboard.press("Tab")
        focused = page.locator(":focus")
        reached |= set(focused.evaluate_all("nodes => nodes.map(node => node.id)"))
    assert {"prompt", "send", "fresh", "mode", "approve", "system", "key"} <= reached


def test_it_loads_nothing_from_elsewhere(server):
    answer = httpx.get(server.url)
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    text = answer.text
    assert not re.search(r"""(?:src|href)=["'](?!data:,)""", text)
    assert not re.search(r"https?://", text)
    assert not re.search(r"innerHTML|\beval\(|\son\w+=", text)
