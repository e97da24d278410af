# The program itself knows its commands, so this is right for whichever version is installed.
postkey completions fish | source
