"""What can go wrong with files and data, each kind by name.

A bad argument is a ``ValueError``. A bad file or bad data is one of these. Every message is one
line that says what is wrong, with which file, and what to do; only the command line prints it.
"""


class AttnactError(Exception):
    """Anything that attnact refuses or cannot do with the files and data at hand."""


class DatasetError(AttnactError):
    """A data set that is missing, half unpacked, or listed wrongly."""


class DownloadError(AttnactError):
    """An archive that could not be fetched, checked or unpacked."""


class VideoError(AttnactError):
    """A file that does not decode to the frames that it promises."""


class DecoderError(AttnactError):
    """The processes that decode cannot start or work, which says nothing of the videos."""


class WeightsError(AttnactError):
    """Backbone weights that are missing, broken, or of another network."""


class UnsupportedError(AttnactError):
    """A way to work that is not installed or not possible on this machine."""


class CacheError(AttnactError):
    """A feature cache that is missing, broken, of another schema, or of other settings."""


class SchemaError(CacheError):
    """A feature cache of a newer attnact."""


class RunError(AttnactError):
    """A run folder that is missing, unfinished, in the way, or does not fit its cache."""


class BusyError(AttnactError):
    """What another process is making: a shard, a run."""


class RunBusyError(RunError, BusyError):
    """A run that another process trains."""


class ClusterError(AttnactError):
    """A cluster that cannot be reached, is not set up alike, or lost a task too often."""
