"""
Every error camrt raises on purpose.

::

    CamrtError
    ├── InputError (ValueError)      the caller can mend it; the command line exits with 2
    │   ├── ModelError               the file is not a classifier that can be read
    │   │   └── MissingRuleError     an operator on the way to the logits has no gradient rule
    │   ├── LayerError               no such layer, or one that has no spatial grid
    │   ├── TargetError              no such class, label, or a target of the wrong shape
    │   ├── ImageError               not a picture, too large, or of the wrong shape
    │   ├── MethodError              no such method or variant, or an option out of range
    │   ├── ShapeError               an array of the wrong rank, size or type
    │   ├── BundleError              a bundle that is incomplete, altered or of another version
    │   └── OutputError              a place that cannot be written
    ├── NumericError (ArithmeticError)   NaN or infinity where a number was needed
    ├── ProviderError (RuntimeError)     an execution provider that is asked for does not run
    ├── MemoryBoundError (MemoryError)   one row of work does not fit the memory that is allowed
    ├── DeadlineError (TimeoutError)     the time that was allowed has passed
    ├── CancelledError (RuntimeError)    the caller cancelled the request
    └── MissingExtraError (ImportError)  an optional dependency is not installed

Each message is one line: what was wanted, what came, what to do. This module imports nothing, and everything may
import it.
"""

__all__ = [
    "BundleError",
    "CamrtError",
    "CancelledError",
    "DeadlineError",
    "ImageError",
    "InputError",
    "LayerError",
    "MemoryBoundError",
    "MethodError",
    "MissingExtraError",
    "MissingRuleError",
    "ModelError",
    "NumericError",
    "OutputError",
    "ProviderError",
    "ShapeError",
    "TargetError",
]


class CamrtError(Exception):
    """The root of everything camrt raises on purpose."""


class InputError(CamrtError, ValueError):
    """Something the caller gave cannot be used; the message says what to give instead."""


class ModelError(InputError):
    """The model file is unreadable, unsafe, or not a classifier."""


class MissingRuleError(ModelError):
    """An operator between the layer and the logits has no gradient rule."""


class LayerError(InputError):
    """The layer does not exist, or has no spatial grid."""


class TargetError(InputError):
    """The class, label or target array does not fit the model."""


class ImageError(InputError):
    """The picture cannot be decoded, is too large, or does not fit the model."""


class MethodError(InputError):
    """The method, its variant or one of its options does not exist or is out of range."""


class ShapeError(InputError):
    """An array has the wrong rank, size or type."""


class BundleError(InputError):
    """A bundle is incomplete, altered, or written by another version."""


class OutputError(InputError):
    """A file or folder cannot be written."""


class NumericError(CamrtError, ArithmeticError):
    """NaN or infinity appeared where a finite number was needed."""


class ProviderError(CamrtError, RuntimeError):
    """An execution provider that was asked for is not available or does not run the model."""


class MemoryBoundError(CamrtError, MemoryError):
    """The smallest piece of work needs more memory than is allowed; the message says how much it needs."""


class DeadlineError(CamrtError, TimeoutError):
    """The time allowed for a request has passed; nothing partial is returned unless it was asked for."""


class CancelledError(CamrtError, RuntimeError):
    """The caller cancelled the request."""


class MissingExtraError(CamrtError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""
