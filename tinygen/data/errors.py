"""The two errors of data files, so that a program can catch them and print the message alone."""


class DataFileError(ValueError):
    """A data file is missing, damaged or not what its reader was asked for.

    The message names the file, what was expected, what came, and what to do.
    """


class DownloadError(DataFileError):
    """No mirror gave the file; the message lists what each one answered."""
