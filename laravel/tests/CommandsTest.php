<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Tests;

use Illuminate\Contracts\Cache\Factory as CacheFactory;
use PHPUnit\Framework\TestCase;
use Ringverb\Laravel\Console\RestartCommand;
use Ringverb\Laravel\Server\Binary;
use Ringverb\Laravel\Server\ProcessTable;
use Ringverb\Laravel\Server\RunningServer;
use Ringverb\Laravel\Server\ServerFiles;
use Ringverb\Laravel\Testing\TestClient;
use Symfony\Component\Console\Input\ArrayInput;
use Symfony\Component\Console\Output\BufferedOutput;

/** The commands as processes, with the real server. The test is the supervisor. */
final class CommandsTest extends TestCase
{
    private string $folder;

    private int $port;

    /** @var resource|null */
    private $process = null;

    protected function setUp(): void
    {
        $this->folder = TestApplication::folder();
        $this->port = self::freePort();
    }

    protected function tearDown(): void
    {
        if ($this->process !== null) {
            proc_terminate($this->process, 15);
            proc_close($this->process);
        }
        TestApplication::remove($this->folder);
    }

    public static function freePort(): int
    {
        $socket = stream_socket_server('tcp://127.0.0.1:0');
        $port = (int) substr((string) strrchr((string) stream_socket_get_name($socket, false), ':'), 1);
        fclose($socket);

        return $port;
    }

    /** @param array<string, mixed> $config */
    private function configure(array $config): void
    {
        file_put_contents($this->folder . '/config.json', json_encode($config, JSON_THROW_ON_ERROR));
    }

    /** @return list<string> */
    private function command(string ...$arguments): array
    {
        return $this->commandOf([], ...$arguments);
    }

    /**
     * @param  list<string>  $options  of PHP
     * @return list<string>
     */
    private function commandOf(array $options, string ...$arguments): array
    {
        return [PHP_BINARY, ...$options, __DIR__ . '/artisan.php', $this->folder, ...$arguments];
    }

    /** @return array<string, string> */
    private static function environment(): array
    {
        return array_filter(
            getenv(),
            static fn(string $name): bool => preg_match('/^(RE|RING)VERB_/', $name) !== 1 ||
                in_array($name, ['RINGVERB_BIN', 'RINGVERB_TEST_AUTOLOAD', 'RINGVERB_IO'], true),
            ARRAY_FILTER_USE_KEY,
        ) + ['RINGVERB_ADMIN' => 'off'];
    }

    private function log(): string
    {
        return (string) @file_get_contents($this->folder . '/log');
    }

    private function start(): int
    {
        $log = ['file', $this->folder . '/log', 'w'];
        $command = $this->command('reverb:start', '--host=127.0.0.1', "--port={$this->port}");
        $this->process = proc_open(
            $command,
            [['file', '/dev/null', 'r'], $log, $log],
            $pipes,
            null,
            self::environment(),
        );
        $deadline = microtime(true) + 30;
        while (!str_contains($this->log(), '  address  ')) {
            self::assertLessThan($deadline, microtime(true), $this->log());
            self::assertTrue(proc_get_status($this->process)['running'], $this->log());
            usleep(10_000);
        }

        return proc_get_status($this->process)['pid'];
    }

    /** @return array{int, string} */
    private function restart(): array
    {
        return Binary::run($this->command('reverb:restart'), null, self::environment());
    }

    private function connect(string $key = 'app-key'): TestClient
    {
        return new TestClient(
            $this->port,
            ['app_id' => '1001', 'key' => $key, 'secret' => 'app-secret'],
            $this->log(...),
        );
    }

    public function test_the_process_becomes_the_server_and_keeps_id_and_connections_over_restarts(): void
    {
        $config = TestApplication::config();
        $this->configure($config);
        file_put_contents($this->folder . '/.env', "RINGVERB_SHUTDOWN_GRACE=2\n");
        $pid = $this->start();
        $processes = new ProcessTable();
        self::assertSame(realpath(TestApplication::program()), $processes->program($pid));
        $arguments = $processes->arguments($pid);
        self::assertContains("--port={$this->port}", $arguments);
        self::assertContains($this->folder . '/.env', $arguments);
        // The server has the environment of before Laravel, and so sees later changes of .env.
        self::assertStringNotContainsString('RINGVERB_WORKERS', (string) file_get_contents("/proc/{$pid}/environ"));
        [$first, $second] = [$this->connect(), $this->connect()];
        $first->subscribe('private-room');
        $second->subscribe('private-room');

        // A deploy with a second app.
        $config['reverb']['apps']['apps'][1] =
            ['app_id' => '2', 'key' => 'second'] + $config['reverb']['apps']['apps'][0];
        $this->configure($config);
        [$code, $output] = $this->restart();
        self::assertSame(0, $code, $output);
        self::assertStringContainsString("Process {$pid} runs the new program", $output);
        self::assertStringContainsString('SIGUSR2 complete: 2 connections kept', $this->log());
        self::assertSame($pid, proc_get_status($this->process)['pid']);
        self::assertTrue(proc_get_status($this->process)['running']);
        $first->whisper('private-room', 'after', ['a' => 1]);
        self::assertSame(['a' => 1], $second->next('client-after')['data']);
        $this->connect('second');

        // A deploy with a configuration that the server refuses.
        $config['reverb']['apps']['apps'][1]['ping_interval'] = 0;
        $this->configure($config);
        [$code, $output] = $this->restart();
        self::assertSame(1, $code, $output);
        self::assertStringContainsString('the new configuration is refused', $output);
        self::assertStringContainsString('ping_interval', $output);
        $first->whisper('private-room', 'still', 'x');
        self::assertSame('x', $second->next('client-still')['data']);
        self::assertSame(1, substr_count($this->log(), 'SIGUSR2 complete'));
        self::assertSame([], glob($this->folder . '/storage/servers/*.next'));
    }

    public function test_a_second_start_at_the_same_address_fails_and_the_first_server_is_still_found(): void
    {
        $this->configure(TestApplication::config());
        $pid = $this->start();
        $command = $this->command('reverb:start', '--host=127.0.0.1', "--port={$this->port}");
        [$code, $output] = Binary::run($command, null, self::environment());
        self::assertSame(1, $code, $output);
        self::assertStringContainsString("Process {$pid} is the server of this application", $output);
        [$code, $output] = $this->restart();
        self::assertSame(0, $code, $output);
        self::assertStringContainsString("Process {$pid} runs the new program", $output);
    }

    public function test_of_two_starts_at_the_same_time_one_fails_and_the_claim_of_the_other_stays(): void
    {
        $this->configure(TestApplication::config());
        $files = new ServerFiles($this->folder . '/storage');
        $file = $files->configuration('127.0.0.1', $this->port);
        // The first start, which this process plays, is about to claim the address.
        $lock = $files->lock($file);
        $log = ['file', $this->folder . '/log', 'w'];
        $this->process = proc_open(
            $this->command('reverb:start', '--host=127.0.0.1', "--port={$this->port}"),
            [['file', '/dev/null', 'r'], $log, $log],
            $pipes,
            null,
            self::environment(),
        );
        $pid = proc_get_status($this->process)['pid'];
        $waits = static fn(): bool => preg_match(
            "/-> FLOCK\\s+ADVISORY\\s+WRITE\\s+{$pid} /",
            (string) file_get_contents('/proc/locks'),
        ) === 1;
        $deadline = microtime(true) + 30;
        while (!$waits()) {
            self::assertStringNotContainsString('  address  ', $this->log(), 'the second start did not wait');
            self::assertLessThan($deadline, microtime(true), $this->log());
            usleep(10_000);
        }
        $processes = new ProcessTable();
        $own = (int) getmypid();
        $server = new RunningServer($own, (string) $processes->identity($own), $file, null);
        $files->claim($file, $server, $processes->processIdsOf());
        unset($lock);
        $code = proc_close($this->process);
        $this->process = null;
        self::assertSame(1, $code, $this->log());
        self::assertStringContainsString("Process {$own} is the server of this application", $this->log());
        self::assertSame($own, $files->running($processes)[0]->pid);
    }

    public function test_the_lock_of_a_start_ends_before_its_process_becomes_the_server(): void
    {
        $this->configure(TestApplication::config());
        $this->start();
        $path = "{$this->folder}/storage/servers/127.0.0.1-{$this->port}.lock";
        self::assertTrue(flock(fopen($path, 'r'), LOCK_EX | LOCK_NB), 'a restart would wait for ever');
    }

    public function test_php_without_the_functions_of_processes_says_which_one_is_missing(): void
    {
        $this->configure(TestApplication::config());
        $run = fn(string $disabled, string ...$arguments): array => Binary::run(
            $this->commandOf(['-d', "disable_functions={$disabled}"], ...$arguments),
            null,
            self::environment(),
        );
        [$code, $output] = $run('pcntl_exec', 'reverb:start', '--host=127.0.0.1', "--port={$this->port}");
        self::assertSame(1, $code, $output);
        self::assertStringContainsString('remove pcntl_exec from disable_functions', $output);
        self::assertSame([], glob($this->folder . '/storage/servers/*.pid'));
        $this->start();
        [$code, $output] = $run('proc_open', 'reverb:restart');
        self::assertSame(1, $code, $output);
        self::assertStringContainsString('this PHP has no proc_open: remove it from disable_functions', $output);
        [$code, $output] = $run('posix_kill', 'reverb:restart');
        self::assertSame(1, $code, $output);
        self::assertStringContainsString('this PHP has no posix_kill', $output);
        $this->connect()->subscribe('private-room');
    }

    public function test_two_servers_of_one_application_restart_each_with_their_own_options(): void
    {
        $config = TestApplication::config();
        $config['reverb']['apps']['apps'][0]['secret'] = $secret = "a\"b'c\\d \u{e4}\u{1f512}\$\{X}#";
        $this->configure($config);
        $first = $this->start();
        [$process, $port, $this->process, $this->port] = [$this->process, $this->port, null, self::freePort()];
        try {
            $second = $this->start();
            [$code, $output] = $this->restart();
            self::assertSame(0, $code, $output);
            foreach ([$first, $second] as $pid) {
                self::assertStringContainsString("Process {$pid} runs the new program", $output);
            }
            foreach ([$port, $this->port] as $each) {
                $app = ['app_id' => '1001', 'key' => 'app-key', 'secret' => $secret];
                (new TestClient($each, $app, $this->log(...)))->subscribe('private-room');
            }
        } finally {
            proc_terminate($process, 15);
            proc_close($process);
        }
    }

    public function test_restarts_at_the_same_time_succeed_and_keep_the_connection(): void
    {
        $this->configure(TestApplication::config());
        $this->start();
        $client = $this->connect();
        $client->subscribe('private-room');
        $restarts = [];
        foreach ([0, 1, 2] as $number) {
            $output = ['file', "{$this->folder}/restart-{$number}", 'w'];
            $restarts[] = proc_open(
                $this->command('reverb:restart'),
                [['file', '/dev/null', 'r'], $output, $output],
                $pipes,
                null,
                self::environment(),
            );
        }
        foreach ($restarts as $number => $restart) {
            $code = proc_close($restart);
            self::assertSame(0, $code, (string) file_get_contents("{$this->folder}/restart-{$number}"));
        }
        $client->sync();
        self::assertSame([], glob($this->folder . '/storage/servers/*.next'));
    }

    public function test_a_restart_by_another_user_changes_nothing_and_names_the_user(): void
    {
        $proc = $this->folder . '/proc';
        foreach (['7' => 33, 'self' => 0] as $process => $user) {
            mkdir("{$proc}/{$process}", 0700, true);
            file_put_contents("{$proc}/{$process}/stat", '7 (ringverb) S' . str_repeat(' 1', 30));
            file_put_contents("{$proc}/{$process}/status", "Name:\tringverb\nUid:\t0\t{$user}\t0\t0\n");
        }
        $application = new TestApplication(TestApplication::config(), $this->folder);
        $application->instance(ProcessTable::class, $processes = new ProcessTable($proc));
        $files = $application->make(ServerFiles::class);
        $path = $files->configuration('127.0.0.1', 8080);
        $files->claim($path, new RunningServer(7, (string) $processes->identity(7), $path, null), null);
        $before = glob(dirname($path) . '/*');
        $command = new RestartCommand();
        $command->setLaravel($application);
        $output = new BufferedOutput();
        self::assertSame(1, $command->run(new ArrayInput([]), $output));
        $said = $output->fetch();
        self::assertStringContainsString('process 7 belongs to user 33. Run this command as that user: sudo', $said);
        self::assertSame($before, glob(dirname($path) . '/*'), 'no file is left');
    }

    public function test_a_restart_of_another_host_is_followed_once(): void
    {
        $application = new TestApplication(TestApplication::config(), $this->folder);
        $cache = $application->make(CacheFactory::class)->store();
        $restart = static function (array $options) use ($application): string {
            $command = new RestartCommand();
            $command->setLaravel($application);
            $output = new BufferedOutput();
            self::assertSame(0, $command->run(new ArrayInput($options), $output));

            return trim($output->fetch());
        };
        $done = 'No server of this application runs on this host.';
        $cache->forever('laravel:reverb:restart', 1_000);
        // What was requested before this host looked for the first time is ignored.
        self::assertSame('', $restart(['--requested' => true]));
        self::assertSame('', $restart(['--requested' => true]));
        $cache->forever('laravel:reverb:restart', 2_000);
        self::assertSame($done, $restart(['--requested' => true]));
        self::assertSame('', $restart(['--requested' => true]));
        // cache:clear is no request, and the next one is followed.
        $cache->forget('laravel:reverb:restart');
        self::assertSame('', $restart(['--requested' => true]));
        self::assertSame('', $restart(['--requested' => true]));
        $cache->forever('laravel:reverb:restart', 3_000);
        self::assertSame($done, $restart(['--requested' => true]));
        // A host does not follow its own request.
        self::assertStringStartsWith($done, $restart([]));
        self::assertGreaterThan(2_000, $cache->get('laravel:reverb:restart'));
        self::assertSame('', $restart(['--requested' => true]));
    }

    public function test_a_start_of_another_program_fails_and_leaves_no_claim(): void
    {
        $this->configure(['ringverb' => ['binary' => '/bin/true']] + TestApplication::config());
        [$code, $output] = Binary::run($this->command('reverb:start'), null, self::environment());
        self::assertSame(1, $code, $output);
        self::assertStringContainsString('/bin/true is not the program ringverb, or does not run here', $output);
        self::assertSame([], glob($this->folder . '/storage/servers/*') ?: []);
    }

    public function test_a_restart_names_the_program_that_the_supervisor_starts_next(): void
    {
        $this->configure(TestApplication::config());
        $this->start();
        mkdir($this->folder . '/storage/bin');
        $program = TestApplication::program();
        foreach ([$this->folder . '/storage/bin/ringverb', $this->folder . '/configured'] as $copy) {
            copy($program, $copy);
            chmod($copy, 0755);
        }
        $restart = function (?string $binary): string {
            $this->configure(['ringverb' => ['binary' => $binary]] + TestApplication::config());
            [$code, $output] = $this->restart();
            self::assertSame(0, $code, $output);

            return preg_replace('/\s+/', ' ', $output);
        };
        // The one below storage is not it while RINGVERB_BINARY is set.
        self::assertStringNotContainsString('It runs', $restart($program));
        $next = "{$this->folder}/configured takes effect when the supervisor starts it again";
        self::assertStringContainsString($next, $restart($this->folder . '/configured'));
        $none = 'but the supervisor cannot start it again. RINGVERB_BINARY is /nowhere, which is no program';
        self::assertStringContainsString($none, $restart('/nowhere'));
    }

    public function test_a_restart_without_a_server_succeeds_and_says_so(): void
    {
        $this->configure(TestApplication::config());
        [$code, $output] = $this->restart();
        self::assertSame(0, $code, $output);
        self::assertStringContainsString('No server of this application runs on this host.', $output);
    }

    public function test_the_first_request_after_a_host_has_looked_is_followed(): void
    {
        $application = new TestApplication(TestApplication::config(), $this->folder);
        $restart = static function () use ($application): string {
            $command = new RestartCommand();
            $command->setLaravel($application);
            $output = new BufferedOutput();
            self::assertSame(0, $command->run(new ArrayInput(['--requested' => true]), $output));

            return trim($output->fetch());
        };
        self::assertSame('', $restart());
        $application->make(CacheFactory::class)->store()->forever('laravel:reverb:restart', 1_000);
        self::assertSame('No server of this application runs on this host.', $restart());
    }

    public function test_fifos_in_the_state_folder_do_not_stop_a_command(): void
    {
        $this->configure(TestApplication::config());
        $folder = $this->folder . '/storage/servers';
        mkdir($folder, 0700, true);
        foreach (['x.pid', 'restart-request'] as $name) {
            posix_mkfifo("{$folder}/{$name}", 0600);
        }
        foreach ([[], ['--requested']] as $options) {
            $command = ['timeout', '20', ...$this->command('reverb:restart', ...$options)];
            [$code, $output] = Binary::run($command, null, self::environment());
            self::assertSame(0, $code, $output);
        }
        posix_mkfifo("{$folder}/127.0.0.1-{$this->port}.lock", 0600);
        $start = $this->command('reverb:start', '--host=127.0.0.1', "--port={$this->port}");
        [$code, $output] = Binary::run(['timeout', '20', ...$start], null, self::environment());
        self::assertSame(1, $code, $output);
        self::assertStringContainsString('Cannot lock', $output);
    }

    public function test_a_start_without_an_app_fails_and_leaves_no_claim(): void
    {
        $config = TestApplication::config();
        $config['reverb']['apps']['apps'] = [];
        $this->configure($config);
        [$code, $output] = Binary::run($this->command('reverb:start'), null, self::environment());
        self::assertSame(1, $code, $output);
        self::assertStringContainsString('No app is configured: set REVERB_APP_ID', $output);
        self::assertSame([], glob($this->folder . '/storage/servers/*') ?: []);
    }
}
