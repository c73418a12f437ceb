<?php

declare(strict_types=1);

namespace Ringverb\Laravel\Tests;

use PHPUnit\Framework\TestCase;
use RuntimeException;
use Ringverb\Laravel\Server\ProcessTable;
use Ringverb\Laravel\Server\RunningServer;
use Ringverb\Laravel\Server\ServerFiles;

final class ServerFilesTest extends TestCase
{
    private string $folder;

    private ServerFiles $files;

    protected function setUp(): void
    {
        $this->folder = TestApplication::folder();
        $this->files = new ServerFiles($this->folder . '/state');
    }

    protected function tearDown(): void
    {
        TestApplication::remove($this->folder);
    }

    public function test_only_the_owner_can_read_a_configuration_whatever_the_umask_is(): void
    {
        $mask = umask(0);
        $file = $this->files->configuration('0.0.0.0', 8080);
        $this->files->write($file, 'first');
        $this->files->write($file, 'second');
        umask($mask);
        self::assertStringEndsWith('/state/servers/0.0.0.0-8080.json', $file);
        self::assertSame(0600, fileperms($file) & 0777);
        self::assertSame(0700, fileperms(dirname($file)) & 0777);
        self::assertSame('second', file_get_contents($file));
        self::assertSame(['0.0.0.0-8080.json'], array_values(array_diff((array) scandir(dirname($file)), ['.', '..'])));
        self::assertSame("*\n", file_get_contents($this->folder . '/state/.gitignore'));
    }

    public function test_the_path_is_that_of_the_shared_folder_behind_a_link_of_a_release(): void
    {
        mkdir($this->folder . '/shared');
        symlink($this->folder . '/shared', $this->folder . '/release-1');
        $file = (new ServerFiles($this->folder . '/release-1'))->configuration('::', 1);
        self::assertSame($this->folder . '/shared/servers/_-1.json', $file);
    }

    public function test_a_process_is_found_by_its_identity_and_an_ended_one_is_forgotten(): void
    {
        $processes = new ProcessTable();
        $pid = (int) getmypid();
        $identity = (string) $processes->identity($pid);
        $alive = $this->files->configuration('127.0.0.1', 1);
        $here = $processes->processIdsOf();
        $this->files->claim($alive, new RunningServer($pid, $identity, $alive, '/app/.env'), $here);
        // The same process id, and another process: that of before a reboot, or one that has ended since.
        $ended = $this->files->configuration('127.0.0.1', 2);
        $this->files->claim($ended, new RunningServer($pid, $identity . '0', $ended, null), $here);
        $broken = dirname($alive) . '/broken.pid';
        file_put_contents($broken, '{"pid":"1"}');
        $running = $this->files->running($processes);
        self::assertCount(1, $running);
        self::assertSame(
            [$pid, $alive, '/app/.env'],
            [$running[0]->pid, $running[0]->configuration, $running[0]->environmentFile],
        );
        self::assertFileDoesNotExist(dirname($alive) . '/127.0.0.1-2.pid');
        $this->files->release($alive);
        self::assertSame([], $this->files->running($processes));
    }

    public function test_the_claim_of_an_ended_process_stays_during_a_start_which_replaces_it(): void
    {
        $processes = new ProcessTable();
        $path = $this->files->configuration('127.0.0.1', 1);
        $claim = dirname($path) . '/127.0.0.1-1.pid';
        $this->files->claim($path, new RunningServer(1, 'ended', $path, null), $processes->processIdsOf());
        $lock = $this->files->lock($path);
        self::assertSame([], $this->files->running($processes));
        self::assertFileExists($claim);
        unset($lock);
        self::assertSame([], $this->files->running($processes));
        self::assertFileDoesNotExist($claim);
    }

    public function test_a_server_of_another_container_with_the_same_folder_is_neither_ours_nor_forgotten(): void
    {
        $processes = new ProcessTable();
        $pid = (int) getmypid();
        $there = $this->files->configuration('0.0.0.0', 8080);
        $server = new RunningServer($pid, (string) $processes->identity($pid), $there, null);
        $this->files->claim($there, $server, 'another-boot:pid:[4026531836]');
        self::assertSame([], $this->files->running($processes));
        self::assertSame(['0.0.0.0-8080'], $this->files->elsewhere($processes));
        self::assertFileExists(dirname($there) . '/0.0.0.0-8080.pid');
        // A start in this container takes the claim.
        $this->files->claim($there, $server, $processes->processIdsOf());
        self::assertCount(1, $this->files->running($processes));
        self::assertSame([], $this->files->elsewhere($processes));
    }

    public function test_a_restart_that_waited_does_not_put_its_older_configuration_in_place(): void
    {
        $path = $this->files->configuration('127.0.0.1', 8080);
        $lock = $this->files->lock($path);
        $now = microtime(true);
        self::assertFalse($lock->hasNewerThan($now - 10));
        $lock->note($now - 5);
        unset($lock);
        $lock = $this->files->lock($path);
        self::assertTrue($lock->hasNewerThan($now - 10));
        self::assertFalse($lock->hasNewerThan($now - 5));
        self::assertFalse($lock->hasNewerThan($now));
        // The clock was set back by an hour.
        $lock->note($now + 3_600);
        self::assertFalse($lock->hasNewerThan($now));
    }

    public function test_a_lock_that_cannot_be_opened_is_named(): void
    {
        $path = $this->files->configuration('127.0.0.1', 8080);
        $lock = dirname($path) . '/127.0.0.1-8080.lock';
        symlink($lock, $lock);
        try {
            $this->files->lock($path);
            self::fail('a loop of links is no lock');
        } catch (RuntimeException $exception) {
            self::assertStringContainsString("Cannot lock {$lock}", $exception->getMessage());
        }
    }

    public function test_a_folder_with_characters_of_patterns_is_read_as_it_is(): void
    {
        $processes = new ProcessTable();
        $pid = (int) getmypid();
        $files = new ServerFiles($this->folder . '/[app]?*');
        $alive = $files->configuration('127.0.0.1', 1);
        $identity = (string) $processes->identity($pid);
        $files->claim($alive, new RunningServer($pid, $identity, $alive, null), $processes->processIdsOf());
        self::assertCount(1, $files->running($processes));
    }

    public function test_proc_is_read_as_the_kernel_writes_it(): void
    {
        $proc = $this->folder . '/proc';
        foreach (['7', '8', 'self', 'sys/kernel/random'] as $name) {
            mkdir("{$proc}/{$name}", 0700, true);
        }
        file_put_contents("{$proc}/sys/kernel/random/boot_id", "boot\n");
        // A name with blanks and a parenthesis; the start time is field 22.
        $fields = implode(' ', range(4, 21));
        file_put_contents("{$proc}/7/stat", "7 (a) b (c) S {$fields} 4711 23 24\n");
        file_put_contents("{$proc}/8/stat", "8 (x) Z {$fields} 4711 23 24\n");
        file_put_contents("{$proc}/7/status", "Name:\tx\nSigIgn:\tffffffffffffffff\nSigCgt:\t8000000000000c01\n");
        file_put_contents("{$proc}/7/cmdline", "ringverb\0start\0--takes-back-from=9\0");
        file_put_contents("{$proc}/self/environ", "A=1\0B=x=y\0broken\0");
        symlink('/srv/ringverb (deleted)', "{$proc}/7/exe");
        mkdir("{$proc}/self/ns");
        symlink('pid:[4026531836]', "{$proc}/self/ns/pid");
        $processes = new ProcessTable($proc);
        self::assertSame('boot:pid:[4026531836]', $processes->processIdsOf());
        self::assertSame('boot:4711', $processes->identity(7));
        self::assertNull($processes->identity(8), 'a process that has ended and waits for its parent');
        self::assertNull($processes->identity(9));
        $caught = array_filter(range(1, 64), static fn(int $signal): bool => $processes->catches(7, $signal));
        self::assertSame([1, 11, 12, 64], array_values($caught));
        self::assertFalse($processes->catches(9, 12));
        self::assertSame(['ringverb', 'start', '--takes-back-from=9'], $processes->arguments(7));
        self::assertSame(['A' => '1', 'B' => 'x=y'], $processes->ownEnvironment());
        self::assertSame('/srv/ringverb', $processes->program(7));
        self::assertSame([7, 8], $processes->all());
    }
}
