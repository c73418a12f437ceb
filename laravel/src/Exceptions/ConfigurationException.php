<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Exceptions;

use RuntimeException;

/** The application's configuration does not describe a server. The message names what to change. */
final class ConfigurationException extends RuntimeException {}
