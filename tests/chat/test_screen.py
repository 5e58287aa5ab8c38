"""The chat's and the blind screens on a real run, driven by keys."""

from __future__ import annotations

import asyncio

import pytest

from engine.chat.blind import Blind, prompts_from
from engine.chat.messages import Done, Spoken
from engine.chat.session import Session, take_up
from engine.chat.settings import Settings
from tests.chat.conftest import chat_processes
from tui.app import FinetuneApp
from tui.screens.blind import BlindScreen
from tui.screens.chat import Chat
from tui.view.chat_view import angle_words, mark, reply_words


def text_of(app):
    return "\n".join(strip.text.rstrip() for strip in app.screen._compositor.render_strips())


async def until(pilot, condition, seconds=60):
    for _ in range(int(seconds / 0.05)):
        await pilot.pause(0.05)
        if condition():
            return
    raise AssertionError(text_of(pilot.app))


def test_talking_turning_stopping_and_leaving(at_home, monkeypatch):
    """In a narrow terminal without colours; two sides stand beside each other once it is wide."""
    monkeypatch.setenv("NO_COLOR", "1")
    run = at_home.run

    async def session():
        app = FinetuneApp()
        async with app.run_test(size=(60, 20)) as pilot:
            await until(pilot, lambda: run.id in text_of(app))
            await pilot.press("c")
            await until(pilot, lambda: isinstance(app.screen, Chat) and app.screen._ready)
            screen = app.screen
            await until(pilot, lambda: "3 steering" in text_of(app) and "warm" in text_of(app))
            await pilot.press("question_mark")
            await until(pilot, lambda: "KEYS" in text_of(app))
            await pilot.press("escape", "f3")
            await until(pilot, lambda: screen._ready and "base (lab-nano)" in text_of(app))
            await pilot.resize_terminal(200, 60)
            screen.query_one("#say").value = "/max_tokens 5"
            await pilot.press("enter")
            screen.query_one("#say").value = "Tell me about the harbor."
            await pilot.press("enter")
            await until(pilot, lambda: len(screen.session.exchanges[0].replies) == 2)
            await until(pilot, lambda: "tokens" in text_of(app))
            await pilot.press("tab", "down", "right", "right")  # to warm: 1.0 and two steps more
            await until(pilot, lambda: screen.session.dials["warm"].value == pytest.approx(1.2))
            await until(pilot, lambda: "+1.20" in text_of(app))
            await pilot.press("f5")
            await until(pilot, lambda: len(screen.session.exchanges[0].replies) == 2)
            screen._set(Settings(temperature=4.0, max_tokens=400, seed=5))  # so hot that it hardly ever ends by itself
            await pilot.press("f5")
            await until(pilot, lambda: screen._spans.get((0, "tuned")))
            await pilot.press("escape")
            await until(pilot, lambda: not screen._speaking)
            assert isinstance(app.screen, Chat), "Escape stopped the reply, and did not leave"
            last = screen.session.exchanges[0]
            await pilot.press("escape")
            await until(pilot, lambda: not isinstance(app.screen, Chat))
            return last

    last = asyncio.run(session())
    assert last.attempt == 2 and set(last.replies) == {"tuned", "compared"}
    again = take_up(run)
    assert again.exchanges[0].replies["tuned"].text == last.replies["tuned"].text and again.wanted["warm"] == 1.2
    assert not chat_processes(run)


def test_judging_by_keys_hides_who_is_who_and_keeps_the_choice(at_home):
    run = at_home.run
    made = Blind(run, "3", "base", prompts_from(run, "general", "3", 3, 9), Settings(temperature=1.5, max_tokens=6))

    async def session():
        app = FinetuneApp(then=lambda: BlindScreen(made))
        async with app.run_test(size=(80, 24)) as pilot:
            await until(pilot, lambda: made.open() is not None and "Which is better?" in text_of(app))
            first = text_of(app)
            index = made.open()
            await pilot.press("1")
            assert made.choices == {index: "left"}
            await pilot.press("u")
            assert made.choices == {} and made.open() == index
            while not made.finished:
                await until(pilot, lambda: made.finished or made.open() is not None)
                await pilot.press("2")
            await until(pilot, lambda: "All pairs are judged" in text_of(app))
            return first, text_of(app)

    first, last = asyncio.run(session())
    assert "steering" not in first and "base" not in first
    assert "95 % interval" in " ".join(last.split()) and "pairs to train on" in " ".join(last.split())
    assert made.preferences.is_file()
    again = Blind(run, "3", "base", prompts_from(run, "general", "3", 3, 9), Settings(temperature=1.5, max_tokens=6))
    assert again.finished and again.tally() == made.tally()
    assert not chat_processes(run)


def test_what_the_screen_says():
    assert [mark("kl", Spoken(0, "tuned", "x", -0.1, kl)) for kl in (0.01, 0.1, 1.0)] == [0, 1, 2]
    assert [mark("logprob", Spoken(0, "tuned", "x", value)) for value in (-0.1, -1.0, -5.0)] == [0, 1, 2]
    assert mark("", Spoken(0, "tuned", "x", -9.0, 9.0)) == 0
    done = Done(0, "tuned", "x", 20, "length", 2.0, kl=0.1234, confidence=0.87)
    assert reply_words(done) == "20 tokens, 10 a second, KL 0.123, confidence 87%, cut off"
    angles = [("a", "b", 0.1), ("a", "c", -0.9)]
    assert angle_words(angles, ["a", "c"]) == "cosines: a × c -0.90 undo each other, a × b +0.10"
    assert angle_words(angles, ["a"]).startswith("cosines: a × c -0.90 opposed")


def test_a_conversation_is_each_sides_own(fake_run):
    session = Session(fake_run().run, "1", "base", Settings(system="Be brief."))
    assert session.say("one").conversations["tuned"][-1]["content"] == "one"
    session.replied(Done(0, "tuned", "T", 1, "end", 0.1))
    session.replied(Done(0, "compared", "B", 1, "end", 0.1))
    asked = session.say("two").conversations
    assert [m["content"] for m in asked["tuned"]] == ["Be brief.", "one", "T", "two"]
    assert [m["content"] for m in asked["compared"]] == ["Be brief.", "one", "B", "two"]
    seeds = {session.regenerate().seed, session.regenerate().seed, session.say("three").seed}
    assert len(seeds) == 3
    with open(session.path, "a") as file:
        file.write('{"kind": "say", "te')  # torn by a kill
    again = take_up(session.run)
    assert [one.prompt for one in again.exchanges] == ["one", "two", "three"]
