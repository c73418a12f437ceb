<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Exceptions;

use RuntimeException;

/** The program is missing, or cannot run here. The message names what to change. */
final class BinaryException extends RuntimeException {}
