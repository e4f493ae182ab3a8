"""Commands over items: placeholders with and without a shell, and names of every kind, byte for byte."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
from pathlib import Path

import pytest

from jobd import config
from jobd.commands import Command, NoCommand, argv, environment, is_script, pack, unpack
from jobd.naming import item_of, key_of

PIECES = [
    b"a", b" ", b"  ", b"'", b'"', b"\n", b"\t", b"-", b"--", b"$(touch pwned)", b"`touch pwned`", b"${HOME}", b"\\",
    b"\\x", b"\\xff", b"5c", b"\xff", b"\x81", b"\x88", b"\xc3\xa9", b"\xed\xb3\xbf", b"{}", b"{.}", b".", b";", b"*",
    b"&", b"|", b"#", b"%s", b"!", b"~", b"\x1b[2J", b"\r",
]  # fmt: skip


def names(count, seed=7):
    """Return different names of files, none of them kind: up to 255 bytes, without a slash."""
    chosen = random.Random(seed)
    made = {b"\xff" * 255, b"-rf", b"\\", b"\\x", b"\\xff", b"\n"}
    while len(made) < count:
        made.add(b"".join(chosen.choice(PIECES) for _ in range(chosen.randint(1, 40)))[:255])
    return sorted(made)


def words(*command):
    return Command(tuple(command), False, b"/").params()


def script(text):
    return Command((text,), True, b"/").params()


def item(name, **more):
    return {"item": pack(name), **more}


def ran(params, payload):
    """Return what the command prints."""
    own = dict(os.environb) | environment(params, payload)
    return subprocess.run(argv(params, payload), env=own, stdout=subprocess.PIPE, check=True).stdout


# -- placeholders ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "stem", "base", "folder", "bare"),
    [
        (b"a/b.tar.gz", b"a/b.tar", b"b.tar.gz", b"a", b"b.tar"),
        (b"b", b"b", b"b", b".", b"b"),
        (b"/b.c", b"/b", b"b.c", b"/", b"b"),
        (b"a.d/b", b"a.d/b", b"b", b"a.d", b"b"),
        (b"a//b/", b"a//b/", b"", b"a", b""),
        (b"", b"", b"", b".", b""),
        (b"/", b"/", b"", b"/", b""),
        (b"a\nb/c.d\n", b"a\nb/c", b"c.d\n", b"a\nb", b"c"),
    ],
)
def test_a_placeholder_stands_for_a_part_of_the_item(name, stem, base, folder, bare):
    params = words(b"x", b"{}", b"{.}", b"{/}", b"{//}", b"{/.}", b"<{}>{}")
    assert argv(params, item(name)) == [b"x", name, stem, base, folder, bare, b"<" + name + b">" + name]
    in_shell = script(b"printf '%s_' {} {.} {/} {//} {/.}")
    assert ran(in_shell, item(name)) == b"_".join([name, stem, base, folder, bare, b""])


@pytest.mark.parametrize(
    ("text", "end"),
    [
        (b"echo a;", "';'"), (b"echo a; \n", "';'"), (b"echo a &", "'&'"), (b"echo a &&", "'&'"), (b"echo a |", "'|'"),
        (b"echo a # why", "a comment"), (b"echo a #", "a comment"), (b"echo a # why\n", "a comment"),
        (b"echo a \\\n", "a backslash"), (b"echo a\\ ", "a backslash"),
        (b"cat << END\na\nEND", "a here-document"), (b"cat <<-'E D' >&2\n\ta\n\tE D\n", "a here-document"),
        (b"cat <<A <<\\B\nA\na\nB", "a here-document"), (b"cat << END\na", "a here-document"),
        (b"cat <<A\nit's\nA", "a here-document"), (b"cat <<A\n\tA\necho", "a here-document"),
        (b"cat <<A <<B\na\nA\nb", "a here-document"), (b"cat <<A\na # b", "a here-document"),
        (b"cat <<A\nit's\nA\necho hi;", "';'"), (b'cat <<A\na 5" disk\nA\necho hi # why', "a comment"),
        (b"echo hi >", "'>'"), (b"echo hi 2>>", "'>'"), (b"cat <", "'<'"), (b"cat <<", "'<'"), (b"echo hi >&", "'&'"),
        (b"A=1 B=2", "an assignment"), (b"echo 'a'; A=1", "an assignment"), (b"true\nA='b c'", "an assignment"),
        (b'A="$B; C" D=$(date +%s) E=`true`', "an assignment"),
    ],
)  # fmt: skip
def test_an_item_that_would_come_after_the_end_of_a_script_is_told(text, end):
    assert Command((text,), True, b"/").severed(objects=False) == end


@pytest.mark.parametrize(
    "text",
    [
        b"echo", b"echo ';'", b'echo "a;"', b"echo \\;", b"echo a#b", b"echo '#'", b'echo "# a"', b"echo $#",
        b"echo \\#", b"# why\necho", b"true; echo", b"true && echo $(true;)", b"echo `true;`",
        b"cat << END\na\nEND\necho", b"true $((1 <<3))\necho", b"echo '<<END'\ntrue\necho", b'true "<<END"\necho',
        b"cat <<A\nit's; #\nA\necho", b'cat <<E"O"\\F\na\nEOF\necho', b"cat <<'E F'\n`\nE F\necho",
        b"cat <<A >&2 <<-B\nB\nA\n\ta\n\tB\necho", b"echo $(cat <<A\nit's\nA\n)", b"echo ${A:-a #b}",
        b'cat <<A; echo "\nA\n"\nit\'s\nA\necho', b"true; env A=1 echo", b"echo '; A=1'", b"echo \\; A=1", b"echo '>'",
    ],
)  # fmt: skip
def test_to_any_other_script_the_item_is_an_argument(text):
    assert Command((text,), True, b"/").severed(objects=False) is None
    assert ran(script(text), item(b"the item;")).endswith(b"the item;\n")


@pytest.mark.parametrize("text", [b"echo {};", b'echo "$JOBD_ITEM";', b"echo {url} # why"])
def test_a_script_that_says_where_the_item_belongs_may_end_as_it_likes(text):
    assert Command((text,), True, b"/").severed(objects=True) is None
    assert Command((b"echo", b";"), False, b"/").severed(objects=False) is None


def test_the_guide_says_what_each_placeholder_stands_for():
    guide = (Path(__file__).parents[1] / "docs" / "map.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\{[./]*\})` \| `(.*)` \|$", guide, re.MULTILINE)
    assert len(rows) == 5
    for place, value in rows:
        assert argv(words(b"x", place.encode()), item(b"logs/a.tar.gz")) == [b"x", value.encode()]


def test_without_a_placeholder_the_item_is_the_last_argument():
    assert argv(words(b"gzip", b"-9"), item(b"a b")) == [b"gzip", b"-9", b"a b"]
    assert ran(script(b"printf '%s,' x  \n"), item(b"a  b")) == b"x,a  b,"


def test_a_script_that_names_the_variable_has_placed_the_item_itself():
    assert ran(script(b'printf "%s," "$JOBD_ITEM"'), item(b"a  b")) == b"a  b,"


def test_a_number_is_the_one_that_the_item_has():
    assert argv(words(b"x", b"{#}"), item(b"a", n=12)) == [b"x", b"12"]
    assert ran(script(b"echo {#} ${#}"), item(b"a", n=12)) == b"12 0\n"
    with pytest.raises(NoCommand, match="has no number"):
        argv(words(b"x", b"{#}"), item(b"a"))
    assert Command.of(words(b"{#}")).numbered
    assert not Command.of(script(b"echo ${#}")).numbered


def test_fields_are_those_of_an_object_and_plain_text_elsewhere():
    fields = {"fields": {"url": "http://x/a b", "n": 3, "ok": True, "no": None, "deep": {"b": [1, "ü"]}}}
    assert argv(words(b"x", b"{url}", b"n={n}", b"{ok}{no}", b"{deep}"), fields) == [
        b"x", b"http://x/a b", b"n=3", b"truenull", '{"b":[1,"ü"]}'.encode(),
    ]  # fmt: skip
    assert ran(script(b"printf '%s,' {url} {n} ${HOME:+home}"), fields) == b"http://x/a b,3,home,"
    assert argv(words(b"awk", b"{print}", b"{}"), item(b"a")) == [b"awk", b"{print}", b"a"]
    assert json.loads(argv(words(b"x"), fields)[1]) == fields["fields"]


def test_a_missing_field_is_said_by_name():
    with pytest.raises(NoCommand, match="has no field 'url'"):
        argv(words(b"x", b"{url}"), {"fields": {"a": 1}})
    with pytest.raises(NoCommand, match="has no field 'url'"):
        environment(script(b"x {url}"), {"fields": {"a": 1}})


@pytest.mark.parametrize("params", [None, {}, {"command": [], "shell": False, "cwd": "/"}, {"command": ["x"]}, "text"])
def test_params_of_something_else_are_refused(params):
    with pytest.raises(NoCommand, match="params are not those of a command"):
        argv(params, item(b"a"))


@pytest.mark.parametrize("payload", [None, {}, "a", {"item": 3}, {"item": {"bytes": "?"}}])
def test_a_payload_of_something_else_is_refused(payload):
    with pytest.raises(NoCommand, match="payload is not that of a command"):
        argv(words(b"x"), payload)


@pytest.mark.parametrize(
    ("typed", "shell"),
    [
        ([b"gzip", b"a b"], False),
        ([b"gzip"], False),
        ([b"{}"], False),
        ([b"gzip -9"], True),
        ([b"gzip {}", b"a"], True),
        ([b"true;false"], True),
        ([b"cat<{}"], True),
        ([b"a=b"], False),
        ([b"./run.sh", b"x;y"], False),
    ],
)
def test_one_word_with_shell_syntax_is_a_script(typed, shell):
    assert is_script(typed) is shell


# -- quoting -----------------------------------------------------------------------------------------------------------

PLACES = [
    b"printf '%s\\0' {}",
    b'printf "%s\\0" "{}"',
    b"printf '%s\\0' '{}'",
    b"printf '%s\\0'",
    b"x=$(printf '%s_' {}); printf '%s\\0' \"${x%_}\"",
    b"x=\"$(printf '%s_' {})\"; printf '%s\\0' \"${x%_}\"",
    b"x=`printf '%s_' {}`; printf '%s\\0' \"${x%_}\"",
    b"x=\"`printf '%s_' {}`\"; printf '%s\\0' \"${x%_}\"",
    b"printf '%s\\0' ${UNSET:-{}}",
    b"printf '%s\\0' \"${UNSET:-{}}\" # it's {}",
    b"(printf '%s\\0' {})",
    b"echo $(( (1) + 1 )) >&2; printf '%s\\0' {}",
    b"case a in a) printf '%s\\0' {};; esac",
    b"true <<A\na 5\" disk\nA\nprintf '%s\\0' {}",
    b"true <<A; printf '%s\\0' {}\nit's {}\nA\n",
    b"true <<-'A B' <<E\"O\"F\n\"\n\tA B\n'\nEOF\nprintf '%s\\0' {}",
    b"true <<A\nx\\\nA\n\"\nA\nprintf '%s\\0' {}",
    b"true <<A\n\\\nA\nprintf '%s\\0' {}",
    b"true <<\\A\n\\\nA\nprintf '%s\\0' {}",
    b"true <<A \"\nA\n\" {}\n'\nA\nprintf '%s\\0' {}",
    b'x="$(true <<A\n"\nA\nprintf \'%s_\' {})"; printf \'%s\\0\' "${x%_}"',
    b"x=`cat <<A\nit's\nA`; printf '%s\\0' {}",
    b"x=$((1<<2)); printf '%s\\0' {}\n# \" {}",
    b"true <<''\n\"\n\nprintf '%s\\0' {}",
]
UNKIND = b"a  b'c\"d$(touch pwned)`touch pwned`\\;{}\xff\x81*\n#"


@pytest.mark.parametrize("text", PLACES)
def test_wherever_a_placeholder_stands_in_a_script_the_item_is_one_text(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert ran(script(text), item(UNKIND)) == UNKIND + b"\0"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", [b"cat <<A\n{}\nA\n", b"cat <<-A\n\t{}\n\tA\n", b"cat <<A\n$(printf '%s\\n' {})\nA\n"])
def test_in_a_here_document_the_item_stands_as_it_is(text):
    assert ran(script(text), item(UNKIND)) == UNKIND + b"\n"
    quoted = b'a 5" {} \'it\' "{.}" ${#}\n'
    assert ran(script(b"cat <<A\n" + quoted + b"A\n"), item(b"x y.c")) == b'a 5" x y.c \'it\' "x y" 0\n'


@pytest.mark.parametrize("end", [b"'A'", b'"A"', b"\\A", b'A""'])
def test_in_a_here_document_that_the_shell_leaves_alone_a_placeholder_is_left_too(end):
    text = b"cat <<%s; echo {}\n{} it's {url}\nA\n" % end
    assert ran(script(text), item(b"x")) == b"{} it's {url}\nx\n"
    assert Command((text,), True, b"/").fields() == ()


@pytest.mark.parametrize("text", [b"((x<<2))\nrm {}\n", b"cat <<A\nrm {}\n B\n"])
def test_a_here_document_without_an_end_is_read_as_script(text):
    assert b'rm "${JOBD_ITEM}"\n' in argv(script(text), item(b"a b"))[2]


def test_what_the_shell_would_read_itself_is_left_to_it():
    assert ran(script(rb"printf '%s,' \{} {}"), item(b"a")) == b"{},a,"


def test_no_text_of_an_item_is_ever_in_a_script():
    for text in PLACES:
        assert argv(script(text), item(b"secret")) == argv(script(text), item(b"other"))


def test_2000_names_reach_a_command_and_a_script_as_they_are():
    found = names(2000)
    assert [argv(words(b"x", b"{}"), item(name))[1] for name in found] == found
    in_env = [environment(script(b"x {}"), item(name))[b"JOBD_ITEM"] for name in found]
    assert in_env == found
    for start in range(0, len(found), 500):
        some = found[start : start + 500]
        printed = subprocess.run([b"printf", b"%s\\0", *some], stdout=subprocess.PIPE, check=True).stdout
        assert printed.split(b"\0")[:-1] == some
        variables = {b"V%d" % place: name for place, name in enumerate(some)}
        text = b"printf '%s\\0' " + b" ".join(b'"${%s}"' % name for name in variables)
        own = {b"PATH": os.environb[b"PATH"]} | variables
        printed = subprocess.run([b"sh", b"-c", text], env=own, stdout=subprocess.PIPE, check=True).stdout
        assert printed.split(b"\0")[:-1] == some


# -- words and keys ----------------------------------------------------------------------------------------------------


def test_every_name_has_a_key_of_its_own_from_which_it_can_be_had_again():
    found = [b"", *names(5000)]
    keys = [key_of(name) for name in found]
    assert [item_of(key) for key in keys] == found
    assert len(set(keys)) == len(found)
    assert all(0 < len(key.encode()) <= 4096 for key in keys)
    assert [unpack(pack(name)) for name in found] == found


def test_a_plain_name_is_its_own_key():
    assert key_of("größe 1/a\\b.txt".encode()) == "größe 1/a\\b.txt"
    assert key_of(b"a\xff") == "a\\xff"
    assert key_of(b"a\\xff") == "a\\x5cxff"


def test_a_long_item_has_a_key_that_is_cut_and_still_its_own():
    one, other = b"x" * 100_000, b"x" * 99_999 + b"y"
    assert len({key_of(one), key_of(other)}) == 2
    assert len(key_of("ü".encode() * 50_000).encode()) <= 4_000


def test_a_command_is_shown_as_it_could_be_typed():
    assert str(Command((b"a b", b"\xff", b"c"), False, b"/")) == "'a b' '\\xff' c"
    assert str(Command((b"a | b",), True, b"/")) == "a | b"


def test_a_command_may_be_jobd_itself():
    told = {"JOBD_ITEM": "a", "JOBD_ITEM_STEM": "a", "JOBD_JOB": "7", "JOBD_ATTEMPT": "1"}
    assert config.settings({}, told | {"JOBD_WORKERS": "3"}).workers == 3
    with pytest.raises(ValueError, match="JOBD_JOBS"):
        config.settings({}, {"JOBD_JOBS": "1"})
