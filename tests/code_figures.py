#!/usr/bin/env python3
"""Figures about the source code in src: how much there is, in which rooms, and what makes it harder to read.

    tests/code_figures.py            the figures of this checkout
    tests/code_figures.py COMMIT     the same beside those of another commit
    tests/code_figures.py --walk     the files of src that work in one IMAP login; needs valgrind, and takes a minute or two

A line counts as code if it is neither blank nor only a comment and belongs to no unit test. A room is a module at the top of src with all
its files. A type name that is defined in two files is doubled: a reader cannot say it without saying the file too.
"""

import collections
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = re.compile(r'^(.*/)?tests(\.rs|/.*)$')
TYPE = re.compile(r'^(?:pub(?:\([^)]*\))? )?(?:struct|enum|trait|type) (\w+)', re.MULTILINE)
FUNCTION = re.compile(r'^( *)(?:pub(?:\([^)]*\))? )?(?:const )?(?:async )?fn \w+')


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
    short_docs = [line for line in lines if re.fullmatch(r'\s*///( [^\s]+){1,4}', line)]
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


def walk():
    """The files whose functions run while a debug build does nothing but log in, without those that only start it."""
    subprocess.run(['cargo', 'build', '--quiet', '--bin', 'postkey', '--example', 'bench'], cwd=ROOT, check=True)
    target = Path(os.environ.get('CARGO_TARGET_DIR', ROOT / 'target')) / 'debug'
    with tempfile.TemporaryDirectory() as folder:
        counted, data = Path(folder, 'postkey'), Path(folder, 'bench')
        data.mkdir()
        # A profile for every eight million blocks, so that most of them are of logins alone.
        counted.write_text(f'''#!/bin/sh
            exec valgrind --quiet --tool=callgrind --callgrind-out-file={folder}/profile --dump-every-bb=8000000 \\
            --compress-strings=no {target}/postkey "$@" 2> /dev/null''')
        counted.chmod(0o755)
        bench = [target / 'examples/bench', 'load', data, '--postkey', counted, '--only', 'postkey', '--quick']
        subprocess.run([*bench, '--measure', 'IMAP logins'], check=True, stdout=subprocess.DEVNULL)
        profiles = sorted(Path(folder).glob('profile.*'), key=lambda path: int(path.suffix[1:]))
        middle = profiles[len(profiles) // 2].read_text(errors='replace')
    found = re.findall(rf'^f[lie]={re.escape(str(ROOT))}/src/(\S+\.rs)$', middle, re.MULTILINE)
    return sorted(set(found) - {'lib.rs', 'main.rs', 'cli/mod.rs'})


def main():
    if len(sys.argv) > 2 or sys.argv[1:2] == ['--help']:
        sys.exit(__doc__)
    if sys.argv[1:] == ['--walk']:
        files = walk()
        print(f'{len(files)} files work in one IMAP login:')
        print('\n'.join(files))
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
