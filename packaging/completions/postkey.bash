# The program itself lists its commands, so this fits whichever version is installed.
eval "$(postkey completions bash)"
