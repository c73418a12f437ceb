<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Exceptions;

use RuntimeException;

/** The admin listener cannot be reached, or does not answer as one. */
final class AdminException extends RuntimeException {}
