# The program itself knows its commands, so this is right for whichever version is installed.
eval "$(postkey completions bash)"
