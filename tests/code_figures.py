#!/usr/bin/env python3
"""Figures about the source code in src: how much there is, in which rooms, and what makes it harder to read.

    tests/code_figures.py            the figures of this checkout
    tests/code_figures.py COMMIT     the same beside those of another commit
    tests/code_figures.py --walk     the files of src that work in one IMAP login and in one refresh; needs valgrind, and takes two minutes

A line counts as code if it is neither blank nor only a comment and belongs to no unit test. A room is a module at the top of src with all
its files. A type name that is defined in two files is doubled: a reader cannot say it without saying the file too.
"""

import collections
import itertools
import json
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = re.compile(r'^(.*/)?tests(\.rs|/.*)$')
TYPE = re.compile(r'^(?:pub(?:\([^)]*\))? )?(?:struct|enum|trait|type) (\w+)', re.MULTILINE)
FUNCTION = re.compile(r'^( *)(?:pub(?:\([^)]*\))? )?(?:const )?(?:async )?fn \w+')

WALKS = [
    ('IMAP login', 'login::the_greeting_offers_what_the_provider_was_seen_to_offer', ['session::serve::{{closure}}']),
    # The vault is written on a thread of its own.
    ('refresh', 'tokens::rotated_refresh_tokens_survive_restarts',
     ['broker::refresh::Refresher::refresh::{{closure}}', 'vault::Vault::keep']),
]


def files_of(commit):
    """Path in src and text of each source file, in the working tree or in a commit."""
    if commit is None:
        return {str(path.relative_to(ROOT / 'src')): path.read_text() for path in sorted((ROOT / 'src').rglob('*.rs'))}
    listed = subprocess.check_output(['git', '-C', ROOT, 'ls-tree', '-r', '--name-only', commit, 'src/'], text=True).split()
    show = lambda name: subprocess.check_output(['git', '-C', ROOT, 'show', f'{commit}:{name}'], text=True)
    return {name.removeprefix('src/'): show(name) for name in listed if name.endswith('.rs')}


def without_tests(name, text):
    """The part of a file that is shipped; unit tests stand at a file's end or in a file of their own."""
    return '' if TESTS.match(name) else text.split('#[cfg(test)]\nmod tests {')[0]


def is_comment(line):
    return line.lstrip().startswith('//')


def doc_comments(text):
    """How many words each doc comment has."""
    lines = [line.strip() for line in text.splitlines()]
    for is_doc, group in itertools.groupby(lines, lambda line: line.startswith('///')):
        if is_doc:
            yield len(' '.join(group).replace('///', '').split())


def lengths_of_functions(text):
    """Lines of each function, its signature and its closing brace included."""
    lines = text.splitlines()
    for start, line in enumerate(lines):
        if (begin := FUNCTION.match(line)) and not is_comment(line):
            closing = begin[1] + '}'
            end = next((n for n in range(start, len(lines)) if lines[n].rstrip() == closing), start)
            one_line = line.rstrip().endswith(('}', ';'))
            yield 1 if one_line else end - start + 1


def figures(commit):
    files = files_of(commit)
    shipped = {name: text for name, text in ((name, without_tests(name, text)) for name, text in files.items()) if text}
    lines = [line for text in shipped.values() for line in text.splitlines()]
    code = [line for line in lines if line.strip() and not is_comment(line)]
    rooms, places = collections.Counter(), collections.defaultdict(set)
    for name, text in shipped.items():
        room = name.split('/')[0].removesuffix('.rs')
        rooms[room] += sum(1 for line in text.splitlines() if line.strip() and not is_comment(line))
        for found in TYPE.findall('\n'.join(line for line in text.splitlines() if not is_comment(line))):
            places[found].add(name)
    doubled = sorted(name for name, where in places.items() if len(where) > 1)
    functions = [length for text in shipped.values() for length in lengths_of_functions(text)]
    short_docs = [words for text in shipped.values() for words in doc_comments(text) if words <= 4]
    sizes = [len(text.splitlines()) for text in shipped.values()]
    general = {
        'lines of code': len(code),
        'lines of comments': sum(map(is_comment, lines)),
        'lines of unit tests': sum(len(text.splitlines()) for text in files.values()) - len(lines),
        'files': len(shipped),
        'files of more than 500 lines': sum(size > 500 for size in sizes),
        'files of fewer than 30 lines': sum(size < 30 for size in sizes),
        'functions of more than 40 lines': sum(length > 40 for length in functions),
        'doubled type names': len(doubled),
        'doc comments of at most four words': len(short_docs),
    }
    return general, rooms, doubled


def end_to_end():
    """The program of the end-to-end tests, which run the daemon in their own process."""
    built = subprocess.run(['cargo', 'test', '--no-run', '--test', 'end_to_end', '--message-format=json'], cwd=ROOT, check=True,
                           stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    messages = map(json.loads, built.stdout.splitlines())
    return next(message['executable'] for message in messages if message.get('target', {}).get('name') == 'end_to_end')


def walk(program, test, entries):
    """How many lines of each file run in one test, counted only while one of the functions `entries` is being called."""
    lines, file = collections.defaultdict(set), None
    with tempfile.TemporaryDirectory() as folder:
        profile = Path(folder, 'profile')
        counting = ['--tool=callgrind', f'--callgrind-out-file={profile}', '--compress-strings=no', '--compress-pos=no', '--collect-atstart=no']
        counting += [f'--toggle-collect=postkey::{entry}' for entry in entries]
        subprocess.run(['valgrind', '--quiet', *counting, program, test, '--exact'], check=True, stdout=subprocess.DEVNULL)
        for line in profile.read_text(errors='replace').splitlines():
            if named := re.fullmatch(r'f[lie]=(.*)', line):
                file = re.fullmatch(re.escape(str(ROOT)) + r'/src/(.*)', named[1])
            elif file and line[:1].isdigit():
                lines[file[1]].add(line.split()[0])
    return {name: len(lines[name]) for name in sorted(lines, key=lambda name: -len(lines[name]))}


def print_walks():
    program = end_to_end()
    for name, test, entries in WALKS:
        lines = walk(program, test, entries)
        print(f'one {name}: {sum(count >= 20 for count in lines.values())} files with at least 20 lines that run, {len(lines)} in all')
        print(textwrap.fill(', '.join(f'{file} {count}' for file, count in lines.items()), 120, break_on_hyphens=False), end='\n\n')


def main():
    if len(sys.argv) > 2 or sys.argv[1:2] == ['--help']:
        sys.exit(__doc__)
    if sys.argv[1:] == ['--walk']:
        print_walks()
        return
    general, rooms, doubled = figures(None)
    columns = [(general, rooms)]
    if len(sys.argv) == 2:
        other = figures(sys.argv[1])
        columns.insert(0, other[:2])
        print(f'{"":36}{sys.argv[1][:10]:>12}{"here":>12}')
    for kind in range(2):
        names = list(dict.fromkeys(name for column in columns for name in column[kind]))
        for name in (names if kind == 0 else sorted(names, key=lambda name: -max(c[1][name] for c in columns))):
            print(f'{name:36}' + ''.join(f'{column[kind][name]:12,}' for column in columns))
        print()
    print('doubled:', ', '.join(doubled))


if __name__ == '__main__':
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)       # `| head` is no error
    main()
