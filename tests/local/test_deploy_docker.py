"""The container stand-in: it copies what a Dockerfile copies, runs nothing, and says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perch.local.deploy import docker
from perch.local.deploy.dockerfile import expand, instructions, is_ignored
from perch.local.deploy.images import ImageStore

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def context(tmp_path, monkeypatch):
    """A build context with two files and a folder; the store lies beside it."""
    monkeypatch.setenv("PERCH_IMAGE_STORE", str(tmp_path / "store"))
    folder = tmp_path / "context"
    (folder / "package" / "sub").mkdir(parents=True)
    (folder / "functions").mkdir()
    (folder / "functions" / "handler.py").write_text("handler")
    (folder / "package" / "sub" / "module.py").write_text("module")
    (folder / "package" / "notes.md").write_text("notes")
    return folder


@pytest.fixture
def store(tmp_path):
    """The store of the test."""
    return ImageStore(tmp_path / "store")


def build(context, dockerfile, *more):
    (context / "functions" / "Dockerfile").write_text(dockerfile)
    return docker.main(["build", "--tag", "x", "--file", "functions/Dockerfile", *more, str(context)])


def test_files_land_where_the_dockerfile_puts_them(context, store):
    """Relative to the task root, to a WORKDIR, or absolute; a folder is copied by what is in it."""
    code = build(
        context,
        "# a comment\nFROM --platform=linux/arm64 public.ecr.aws/lambda/python:3.13\nARG INDEX\nENV MODE=fast \\\n"
        "    INDEX=$INDEX\nCOPY functions/handler.py ./\nCOPY package ${LAMBDA_TASK_ROOT}/package\n"
        "COPY functions/handler.py /opt/python/other.py\nWORKDIR deep\nCOPY functions/*.py functions/handler.py here/\n"
        'RUN pip install torch \\\n && rm x\nCMD ["handler.handler"]\nEXPOSE 80\n',
        "--build-arg", "INDEX=cpu", "--platform", "linux/arm64",
    )  # fmt: skip
    image = store.find("x")
    files = sorted(path.relative_to(image.root).as_posix() for path in image.root.rglob("*") if path.is_file())

    assert code == 0
    assert files == [
        "opt/python/other.py",
        "var/task/deep/here/handler.py",
        "var/task/handler.py",
        "var/task/package/notes.md",
        "var/task/package/sub/module.py",
    ]
    assert image.command == ("handler.handler",)
    assert image.environment == {"LAMBDA_TASK_ROOT": "/var/task", "MODE": "fast", "INDEX": "cpu"}
    assert image.not_run == ("pip install torch   && rm x",)
    assert (image.task_root / "handler.py").read_text() == "handler"


def test_the_ignore_file_is_honoured(context, store):
    """The last pattern that fits decides."""
    (context / ".dockerignore").write_text("**/*.md\npackage/sub\n!package/sub/module.py\n# nothing\n")
    (context / "package" / "sub" / "secret").write_text("x")
    build(context, "FROM x\nCOPY package package\n")
    image = store.find("x")

    assert [path.name for path in image.root.rglob("*") if path.is_file()] == ["module.py"]


def test_tag_push_and_inspect_go_together(context, store, capsys):
    """What the CDK's tool does with an image that it does not find."""
    assert docker.main(["login", "-u", "AWS", "repository"]) == 0
    assert docker.main(["inspect", "x"]) == 1
    assert build(context, "FROM x\nCOPY package package\n") == 0
    assert docker.main(["inspect", "x"]) == 0
    assert docker.main(["tag", "x", "here/repo:1"]) == 0
    assert docker.main(["push", "--quiet", "here/repo:1"]) == 0
    assert store.find("here/repo:1") == store.find("x") == store.find(f"here/repo@{store.find('x').digest}")
    assert docker.NOTICE in capsys.readouterr().err


def test_the_same_context_gives_the_same_image(context, store):
    """And another file gives another; the first stays as it was."""
    dockerfile = "FROM x\nCOPY package package\n"
    build(context, dockerfile)
    first = store.find("x")
    build(context, dockerfile)
    assert store.find("x") == first
    (context / "package" / "notes.md").write_text("other")
    build(context, dockerfile)

    assert store.find("x").digest != first.digest
    assert (first.task_root / "package" / "notes.md").read_text() == "notes"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "x"], "not 'run'"),
        ([], "not 'nothing'"),
        (["push", "x"], "does not exist locally"),
        (["tag", "x", "y"], "No such image: x"),
        (["tag", "x"], "a source and a target"),
    ],
)
def test_what_it_cannot_do_it_refuses_in_words(context, capsys, arguments, words):
    """With exit code 1."""
    assert docker.main(arguments) == 1
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("dockerfile", "words"),
    [
        ("FROM x\nCOPY nowhere .\n", "Dockerfile, line 2: nowhere is not in the build context"),
        ("FROM x\n\nCOPY ../secret .\n", "line 3: ../secret lies outside the build context"),
        ("FROM x\nCOPY one\n", "line 2: COPY needs at least a source and a destination"),
    ],
)
def test_a_copy_that_cannot_be_made_fails_the_build(context, store, capsys, dockerfile, words):
    """With file, line and what is wrong; no image is made."""
    assert build(context, dockerfile) == 1
    assert words in capsys.readouterr().err
    assert store.find("x") is None


def test_stages_are_followed(context, store):
    """The last one is the image; it takes files and settings from those before, and arguments from before them all."""
    code = build(
        context,
        "ARG BASE=public.ecr.aws/lambda/python:3.13\nARG WHO=nobody\nFROM ${BASE} AS first\nARG WHO\n"
        "COPY package /built/package\nRUN make\nENV SEEN=$WHO\nCMD first\nFROM first AS second\nUSER 1:1\n"
        "FROM $BASE\nARG WHO\nENV SEEN=${WHO:-nothing}\nCOPY --from=first --chown=1 /built/package ./package\n"
        "COPY --from=0 /built/package/notes.md ./\nCOPY --from=first /made ./made\nCOPY --from=other:1 /x ./\n"
        'FROM second\nCOPY functions/handler.py ./\nENTRYPOINT ["/bin/sh", "go.sh"]\nUSER 65532:65532\n'
        'STOPSIGNAL SIGTERM\nHEALTHCHECK --interval=10s CMD ["true"]\nCMD ["handler.handler"]\n',
        "--build-arg", "WHO=me",
    )  # fmt: skip
    image = store.find("x")
    files = sorted(path.relative_to(image.root).as_posix() for path in image.root.rglob("*") if path.is_file())
    told = json.loads((image.root.parent / "image.json").read_text())

    assert code == 0
    assert files == ["built/package/notes.md", "built/package/sub/module.py", "var/task/handler.py"]
    assert image.command == ("handler.handler",)
    assert image.environment["SEEN"] == "me"
    assert image.not_run == ("make", "COPY --from=first /made ./made", "COPY --from=other:1 /x ./")
    assert told["base"] == "public.ecr.aws/lambda/python:3.13"
    assert (told["entrypoint"], told["user"]) == (["/bin/sh", "go.sh"], "65532:65532")
    assert (told["stop_signal"], told["healthcheck"]) == ("SIGTERM", '--interval=10s CMD ["true"]')


def test_stages_before_the_last_leave_nothing_else(context, store):
    """What a stage copied stays in it, unless it is taken."""
    build(context, "FROM x AS first\nCOPY package package\nFROM x\nCOPY --from=first /var/task/package/notes.md ./\n")
    image = store.find("x")
    assert [path.name for path in image.root.rglob("*") if path.is_file()] == ["notes.md"]


@pytest.mark.parametrize("folder", ["container", "predict_torch"])
def test_the_projects_own_images_hold_handler_package_and_entrypoint(context, store, folder):
    """And nothing of the control side or of a laptop."""
    file = f"functions/{folder}/Dockerfile"
    assert docker.main(["build", "--tag", "x", "--file", file, str(ROOT)]) == 0
    image = store.find("x")
    told = json.loads((image.root.parent / "image.json").read_text())
    rooms = {path.name for path in (image.task_root / "perch").iterdir()}

    assert (image.task_root / "handler.py").is_file()
    assert (image.root / "opt" / "perch" / "entrypoint.sh").is_file()
    assert {"predictor", "artifacts", "domain"} <= rooms
    assert not rooms & {"app", "aws", "cli", "local", "export", "signing"}
    assert (image.command, told["user"]) == (("handler.handler",), "65532:65532")
    assert told["base"] == "public.ecr.aws/lambda/python:3.13"


@given(st.text(alphabet="ab/*.", max_size=12))
def test_a_negated_pattern_undoes_itself(pattern):
    """Whatever a pattern leaves out, its negation after it lets in again."""
    assert not is_ignored("a/b.b", [pattern.lstrip("!"), f"!{pattern}"]) or not pattern.strip("/")


def test_variables_expand_as_in_a_dockerfile():
    """Defaults and alternatives included; an unknown name is empty."""
    variables = {"A": "1"}
    assert expand("$A ${A} ${B} ${B:-x} ${A:+y} ${B:+z}", variables) == "1 1  x y "
    assert instructions("FROM x\n# c\nRUN a \\\n# c\n  b\n") == [(1, "FROM", "x"), (3, "RUN", "a    b")]
