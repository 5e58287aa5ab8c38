"""The command line. Importing this module is cheap: everything a command needs is imported when it is called."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("start", "run a built-in recipe on the embedded lab model; no network, no GPU"),
    "run": ("start", "start a recipe in the background and watch it"),
    "check": ("check", "will it fit, how long will it take, and what would make it fit"),
    "resume": ("start", "carry on with a run where it was"),
    "attach": ("start", "watch a run"),
    "pause": ("steer", "save at the next step and pause"),
    "stop": ("steer", "save at the next step and stop"),
    "rm": ("steer", "remove a run and everything it wrote"),
    "runs": ("look", "list the runs"),
    "show": ("look", "one run: stages, metrics, gates"),
    "compare": ("compare", "several runs side by side: what their recipes differ in, and their gates"),
    "logs": ("look", "what the processes of a run printed"),
    "export": ("export", "take a run home: adapter, merged, GGUF, Ollama, MLX, vectors, hub"),
    "chat": ("chat", "talk with a run's stages, with dials for what steers them"),
    "blind": ("blind", "judge two stages blind on the same prompts"),
    "probe": ("machine", "what this machine has: processors, memory, disk, power, libraries"),
    "doctor": ("machine", "what is missing or mismatched, and the command that mends it"),
    "data": ("data", "what a dataset is, what is wrong with it, which methods it serves"),
    "methods": ("methods", "compare the methods, or print the card of one"),
    "choose": ("methods", "find the method for a goal, question by question"),
}
"""Command -> (module under tui/commands, help)."""


class Parser(argparse.ArgumentParser):
    """Bad words get the nearest good one, and exit code 2."""

    def error(self, message: str) -> NoReturn:
        words = sys.argv[1:]
        if "invalid choice" in message and words:
            from recipes.errors import nearest_word

            near = next((nearest_word(word, COMMANDS) for word in words if not word.startswith("-")), None)
            message += f". Did you mean `{near}`?" if near else ""
        self.print_usage(sys.stderr)
        self.exit(2, f"{self.prog}: {message}\n")


def parser() -> argparse.ArgumentParser:
    top = Parser(prog="finetune-tui", description="Fine-tune a language model at home.", allow_abbrev=False)
    top.add_argument("--version", action="store_true", help="print the version")
    top.add_argument("--web", action="store_true", help="serve the app to a browser on this machine")
    top.add_argument(
        "--port", type=int, default=8000, metavar="N", help="with --web: the port (default 8000; 0: a free one)"
    )
    commands = top.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    made = {name: commands.add_parser(name, help=text, description=text) for name, (_, text) in COMMANDS.items()}

    made["demo"].add_argument(
        "recipe", nargs="?", default="base-alignment", metavar="RECIPE", help="default: base-alignment"
    )
    made["run"].add_argument("recipe", metavar="RECIPE", help="a YAML file or the name of a library recipe")
    made["check"].add_argument("recipe", metavar="RECIPE", help="a YAML file or the name of a library recipe")
    made["check"].add_argument(
        "--hardware", metavar="NAME", help="plan for another machine: rtx-3090, m2-ultra-64gb, … or a YAML file"
    )
    made["check"].add_argument("--make-fit", action="store_true", help="change the recipe until it fits, and print it")
    made["check"].add_argument("-o", "--output", metavar="FILE", help="where --make-fit writes the recipe")
    made["check"].add_argument("--quick", action="store_true", help="arithmetic only: at once, with a wider band")
    for name in ("demo", "run", "check"):
        made[name].add_argument(
            "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
            help="override a field, such as stages.0.steps=100",
        )  # fmt: skip
    made["resume"].add_argument("run", nargs="?", metavar="RUN", help="default: the newest")
    made["resume"].add_argument(
        "--accept-changed-data",
        action="store_true",
        help="go on with the rows kept in the run although the files changed",
    )
    for name in ("demo", "run", "resume"):
        made[name].add_argument("--now", action="store_true", help="do not wait for other runs on the device")
        made[name].add_argument("--detach", action="store_true", help="start and return at once")
    for name in ("attach", "show", "logs", "pause", "stop"):
        made[name].add_argument("run", nargs="?", metavar="RUN", help="an id or its beginning; default: the newest")
    made["compare"].add_argument("runs", nargs="+", metavar="RUN", help="two or more ids or their beginnings")
    made["rm"].add_argument("run", metavar="RUN", help="an id or its beginning")
    made["rm"].add_argument("--yes", action="store_true", help="do not ask")
    made["logs"].add_argument("--lines", type=int, default=40, help="lines of each log (default 40)")
    _export_arguments(made["export"])
    made["doctor"].add_argument("--model", metavar="MODEL", help="also whether this model can be had from the hub")
    made["data"].add_argument(
        "file",
        metavar="FILE",
        help="a file, a directory, lab/…, builtin/…, or owner/name[@revision][:files] on the hub",
    )
    made["data"].add_argument("--method", metavar="METHOD", help="judge it for this method")
    made["data"].add_argument(
        "--columns", action="append", default=[], metavar="OURS=YOURS", help="such as prompt=question,completion=reply"
    )
    made["data"].add_argument("--heldout", metavar="FILE", help="look for its rows among the training rows")
    made["data"].add_argument("--model", metavar="DIR", help="lab or a model's directory: lengths in its tokens, ends")
    made["data"].add_argument("--verifier", metavar="KIND", help="try it on the answers: number, exact, math, …")
    made["data"].add_argument("--max-length", type=int, metavar="N", help="tokens after which a row is cut off")
    made["methods"].add_argument("method", nargs="?", metavar="METHOD", help="such as dpo; default: all of them")
    made["choose"].add_argument("--answers", metavar="A,B", help="answer without being asked: preferences,constrained")
    made["choose"].add_argument("--use-case", metavar="NAME", help="start from a use case, such as math-tutoring")
    _talking(made["chat"], made["blind"])
    for name in ("demo", "run", "resume", "attach"):
        made[name].add_argument("--headless", action="store_true", help="plain lines, no live line")
    for command in made.values():
        command.add_argument("--json", action="store_true", help="print JSON")
    return top


def _export_arguments(export: argparse.ArgumentParser) -> None:
    export.add_argument("run", nargs="?", metavar="RUN", help="an id or its beginning; default: the newest")
    export.add_argument("--to", metavar="FORM", help="left out: all forms, what each is for and how large it gets")
    export.add_argument("--type", metavar="TYPE", help="how weights are stored: f16, q8_0, q4_k_m, 4bit, … by form")
    export.add_argument("--stage", type=int, metavar="N", help="the model after this stage; default: the last finished")
    export.add_argument("--out", metavar="DIR", help="where to; default: the run's own exports folder")
    export.add_argument("--replace", action="store_true", help="write over an export that is there already")
    export.add_argument("--repo", metavar="OWNER/NAME", help="with --to hub: the repository, private unless --public")
    export.add_argument("--of", metavar="FORM", help="with --to hub: what to upload (default: the adapter)")
    export.add_argument("--public", action="store_true", help="with --to hub: a public repository")


def _talking(chat: argparse.ArgumentParser, blind: argparse.ArgumentParser) -> None:
    for made in (chat, blind):
        made.add_argument("run", nargs="?", metavar="RUN", help="an id or its beginning; default: the newest")
        made.add_argument("--stage", metavar="STAGE", help="a number, a method or base; default: the newest finished")
        made.add_argument("--temperature", metavar="T", help="0 is greedy (default 0.7)")
        made.add_argument("--max-tokens", metavar="N", help="longest reply (default 256)")
        made.add_argument("--system", metavar="TEXT", help="a system prompt")
        made.add_argument("--anyway", action="store_true", help="load even where memory may not suffice")
        made.add_argument("--headless", action="store_true", help="line by line, without the screen")
    chat.add_argument("--compare", metavar="STAGE", help="another stage beside it, or base")
    chat.add_argument("--top-p", metavar="P", help="share of the probability that is drawn from (default 1)")
    chat.add_argument("--seed", metavar="N", help="decides all that is drawn (default 0)")
    chat.add_argument("--gauge", metavar="WHAT", help="colour tokens by kl (to the base) or logprob")
    chat.add_argument("--dial", action="append", default=[], metavar="NAME=VALUE", help="such as warm=0.5")
    chat.add_argument(
        "--continue", nargs="?", const="", dest="continued", metavar="CHAT", help="take up the newest chat, or this one"
    )
    blind.add_argument("--against", metavar="STAGE", default="base", help="the other stage (default base)")
    blind.add_argument("--prompts", metavar="WHERE", default="heldout", help="a file, `heldout` (default) or `general`")
    blind.add_argument("-n", type=int, default=20, metavar="N", help="how many prompts (default 20)")
    blind.add_argument("--seed", type=int, default=0, metavar="N", help="decides order, sides and replies (default 0)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done and gates passed, 1 failed, 2 bad input, 3 done but a gate failed, 4 does not fit."""
    options = parser().parse_args(arguments)
    if options.version:
        from importlib.metadata import version

        print(f"finetune-tui {version('finetune-tui')}")
        return 0
    if options.web:
        if options.command is not None:
            parser().error(f"--web opens the app and takes no command; found `{options.command}`")
        options.command, options.json = "--web", False
        return _guarded(options)
    if options.command is None:
        if sys.stdin.isatty() and sys.stdout.isatty():
            from tui.app import open_app

            return open_app()
        parser().print_help()
        return 0
    return _guarded(options)


def _guarded(options: argparse.Namespace) -> int:
    """Run the command; turn the errors that a user can mend into words and exit codes."""
    import importlib

    from recipes.errors import InputError
    from tui.settings import apply_directories, load_settings

    chosen = load_settings()
    apply_directories(chosen.settings)
    for problem in chosen.problems:
        print(f"finetune-tui: {problem} The default is in force.", file=sys.stderr)
    place, name = ("web", "serve") if options.web else (COMMANDS[options.command][0], options.command)
    module = importlib.import_module(f"tui.commands.{place}")
    command: Callable[[argparse.Namespace], int] = getattr(module, name)
    try:
        return command(options)
    except InputError as error:
        _say(options, "input", [str(problem) for problem in error.problems])
        return 2
    except BrokenPipeError:  # the reader of our output is gone, as with `| head`
        sys.stderr.close()
        return 1
    except Exception as error:
        from engine.runs.launch import NotStarted
        from engine.runs.lock import LockHeld

        if isinstance(error, LockHeld):
            _say(options, "held", [f"{error}; `finetune-tui attach` watches it, `pause` and `stop` end it"])
            return 2
        if isinstance(error, NotStarted):
            _say(options, "not-started", [str(error)])
            return 1
        raise


def _say(options: argparse.Namespace, kind: str, messages: list[str]) -> None:
    if getattr(options, "json", False):
        import json

        print(json.dumps({"error": kind, "messages": messages}))
    for message in messages:
        print(f"finetune-tui {options.command}: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
