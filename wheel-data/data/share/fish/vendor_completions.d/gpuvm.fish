# Completion of gpuvm for fish, made by `gpuvm completion fish`.

# Whether the verb is this one, and no program has begun.
function __gpuvm_verb
    set -l words (commandline -opc)
    test "$words[2]" = $argv[1]; and not contains -- -- $words
end

# Whether the verb is one of these, and a program has begun.
function __gpuvm_runs
    set -l words (commandline -opc)
    contains -- "$words[2]" $argv; and contains -- -- $words
end

function __gpuvm_no_verb
    test (count (commandline -opc)) -eq 1
end

# The program that begins behind --, as its own completion has it.
function __gpuvm_program
    set -l words (commandline -opc) (commandline -ct)
    set -l at (math 1 + (contains -i -- -- $words))
    if test $at -eq (count $words)
        complete -C $words[-1]
    else
        complete -C (string join -- ' ' (string escape -- $words[$at..-2]) $words[-1])
    end
end

# Traces and request files; all files, if there is none of these.
function __gpuvm_traces
    set -l files (__fish_complete_path (commandline -ct))
    set -l traces (string match -r -- '^.*\.(?:gpuvm|jsonl|jsonl\.gz|txt)(?:\t.*)?$' $files)
    if set -q traces[1]
        printf '%s\n' $traces (string match -r -- '^.*/(?:\t.*)?$' $files)
    else
        printf '%s\n' $files
    end
end

complete -c gpuvm -e
complete -c gpuvm -f
complete -c gpuvm -n __gpuvm_no_verb -s h -l help -d 'show help'
complete -c gpuvm -n __gpuvm_no_verb -s V -l version -d 'print the version'
complete -c gpuvm -n '__gpuvm_runs run record top sniff check' -a '(__gpuvm_program)'

complete -c gpuvm -n __gpuvm_no_verb -a run -d 'run a program on the virtual device'
complete -c gpuvm -n '__gpuvm_verb run' -s h -l help -d 'show this help message and exit'
complete -c gpuvm -n '__gpuvm_verb run' -l chipset -x -a 'turing ampere' -d 'turing (TU102, the default), ampere (GA102), or a number such as 0x162'
complete -c gpuvm -n '__gpuvm_verb run' -l vram -x -d 'its memory: 512M, 8G (the default)'
complete -c gpuvm -n '__gpuvm_verb run' -l root -x -a '(__fish_complete_directories)' -d 'run the program with this directory as its root'
complete -c gpuvm -n '__gpuvm_verb run' -l userns -d 'use a user namespace as root, too'
complete -c gpuvm -n '__gpuvm_verb run' -s o -l output -r -F -d 'record the driver\'s calls in this new file'
complete -c gpuvm -n '__gpuvm_verb run' -s f -l force -d 'overwrite an existing TRACE'
complete -c gpuvm -n '__gpuvm_verb run' -a -- -d 'the program begins'

complete -c gpuvm -n __gpuvm_no_verb -a record -d 'run a program on the virtual device and record it'
complete -c gpuvm -n '__gpuvm_verb record' -s h -l help -d 'show this help message and exit'
complete -c gpuvm -n '__gpuvm_verb record' -l chipset -x -a 'turing ampere' -d 'turing (TU102, the default), ampere (GA102), or a number such as 0x162'
complete -c gpuvm -n '__gpuvm_verb record' -l vram -x -d 'its memory: 512M, 8G (the default)'
complete -c gpuvm -n '__gpuvm_verb record' -l root -x -a '(__fish_complete_directories)' -d 'run the program with this directory as its root'
complete -c gpuvm -n '__gpuvm_verb record' -l userns -d 'use a user namespace as root, too'
complete -c gpuvm -n '__gpuvm_verb record' -s o -l output -r -F -d 'the new file; by default the program\'s name and .gpuvm, here'
complete -c gpuvm -n '__gpuvm_verb record' -s f -l force -d 'overwrite an existing TRACE'
complete -c gpuvm -n '__gpuvm_verb record' -a -- -d 'the program begins'

complete -c gpuvm -n __gpuvm_no_verb -a top -d 'watch a program on the virtual device'
complete -c gpuvm -n '__gpuvm_verb top' -s h -l help -d 'show this help message and exit'
complete -c gpuvm -n '__gpuvm_verb top' -l chipset -x -a 'turing ampere' -d 'turing (TU102, the default), ampere (GA102), or a number such as 0x162'
complete -c gpuvm -n '__gpuvm_verb top' -l vram -x -d 'its memory: 512M, 8G (the default)'
complete -c gpuvm -n '__gpuvm_verb top' -l root -x -a '(__fish_complete_directories)' -d 'run the program with this directory as its root'
complete -c gpuvm -n '__gpuvm_verb top' -l userns -d 'use a user namespace as root, too'
complete -c gpuvm -n '__gpuvm_verb top' -s o -l output -r -F -d 'keep the recording in this new file'
complete -c gpuvm -n '__gpuvm_verb top' -s f -l force -d 'overwrite an existing TRACE'
complete -c gpuvm -n '__gpuvm_verb top' -a '(__gpuvm_traces)'
complete -c gpuvm -n '__gpuvm_verb top' -a -- -d 'the program begins'

complete -c gpuvm -n __gpuvm_no_verb -a sniff -d 'list what a program needs and the virtual device lacks'
complete -c gpuvm -n '__gpuvm_verb sniff' -s h -l help -d 'show this help message and exit'
complete -c gpuvm -n '__gpuvm_verb sniff' -l chipset -x -a 'turing ampere' -d 'turing (TU102, the default), ampere (GA102), or a number such as 0x162'
complete -c gpuvm -n '__gpuvm_verb sniff' -l vram -x -d 'its memory: 512M, 8G (the default)'
complete -c gpuvm -n '__gpuvm_verb sniff' -l root -x -a '(__fish_complete_directories)' -d 'run the program with this directory as its root'
complete -c gpuvm -n '__gpuvm_verb sniff' -l userns -d 'use a user namespace as root, too'
complete -c gpuvm -n '__gpuvm_verb sniff' -a -- -d 'the program begins'

complete -c gpuvm -n __gpuvm_no_verb -a info -d 'summarise a trace'
complete -c gpuvm -n '__gpuvm_verb info' -s h -l help -d 'show this help message and exit'
complete -c gpuvm -n '__gpuvm_verb info' -a '(__gpuvm_traces)'

complete -c gpuvm -n __gpuvm_no_verb -a check -d 'look for what is wrong in a trace, or in a program'
complete -c gpuvm -n '__gpuvm_verb check' -s h -l help -d 'show this help message and exit'
complete -c gpuvm -n '__gpuvm_verb check' -l ignore -x -a 'use-after-unmap use-before-bind rebind-while-running exec-faulted double-close leak-at-exit eviction-thrash mergeable-neighbours bind-changes-nothing sparse-never-populated mapping-never-used' -d 'do not ask this rule; repeatable'
complete -c gpuvm -n '__gpuvm_verb check' -l suppressions -r -F -d 'findings that are known, a line each'
complete -c gpuvm -n '__gpuvm_verb check' -l strict -d 'notes count, too'
complete -c gpuvm -n '__gpuvm_verb check' -l json -d 'the findings of a TRACE as JSON'
complete -c gpuvm -n '__gpuvm_verb check' -l sarif -r -F -d 'write them as SARIF 2.1.0, too'
complete -c gpuvm -n '__gpuvm_verb check' -l rules -d 'list the rules'
complete -c gpuvm -n '__gpuvm_verb check' -l explain -x -a 'use-after-unmap use-before-bind rebind-while-running exec-faulted double-close leak-at-exit eviction-thrash mergeable-neighbours bind-changes-nothing sparse-never-populated mapping-never-used' -d 'what a rule is about, with its examples'
complete -c gpuvm -n '__gpuvm_verb check' -l chipset -x -a 'turing ampere' -d 'turing (TU102, the default), ampere (GA102), or a number such as 0x162'
complete -c gpuvm -n '__gpuvm_verb check' -l vram -x -d 'its memory: 512M, 8G (the default)'
complete -c gpuvm -n '__gpuvm_verb check' -l root -x -a '(__fish_complete_directories)' -d 'run the program with this directory as its root'
complete -c gpuvm -n '__gpuvm_verb check' -l userns -d 'use a user namespace as root, too'
complete -c gpuvm -n '__gpuvm_verb check' -s o -l output -r -F -d 'keep a PROGRAM\'s recording in this new file'
complete -c gpuvm -n '__gpuvm_verb check' -s f -l force -d 'overwrite existing files'
complete -c gpuvm -n '__gpuvm_verb check' -a '(__gpuvm_traces)'
complete -c gpuvm -n '__gpuvm_verb check' -a -- -d 'the program begins'

complete -c gpuvm -n __gpuvm_no_verb -a why -d 'everything that happened to an address'
complete -c gpuvm -n '__gpuvm_verb why' -s h -l help -d 'show this help message and exit'
complete -c gpuvm -n '__gpuvm_verb why' -l at -x -d 'what it was after this call, instead of at the fault'
complete -c gpuvm -n '__gpuvm_verb why' -l client -x -d 'of this one alone'
complete -c gpuvm -n '__gpuvm_verb why' -l all -d 'every event, not the first and last of many'
complete -c gpuvm -n '__gpuvm_verb why' -l json -d 'the same as one JSON object, with all events'
complete -c gpuvm -n '__gpuvm_verb why' -a '(__gpuvm_traces)'

complete -c gpuvm -n __gpuvm_no_verb -a view -d 'a trace as a page: address space against time'
complete -c gpuvm -n '__gpuvm_verb view' -s h -l help -d 'show this help message and exit'
complete -c gpuvm -n '__gpuvm_verb view' -s o -l output -r -F -d 'the page'
complete -c gpuvm -n '__gpuvm_verb view' -s f -l force -d 'overwrite an existing page'
complete -c gpuvm -n '__gpuvm_verb view' -l client -x -d 'only this one'
complete -c gpuvm -n '__gpuvm_verb view' -a '(__gpuvm_traces)'

complete -c gpuvm -n __gpuvm_no_verb -a dump -d 'print a trace\'s calls, a line each'
complete -c gpuvm -n '__gpuvm_verb dump' -s h -l help -d 'show this help message and exit'
complete -c gpuvm -n '__gpuvm_verb dump' -l calls -x -d 'these calls alone: 57, 0-100, 57-'
complete -c gpuvm -n '__gpuvm_verb dump' -l client -x -d 'the calls of this client alone'
complete -c gpuvm -n '__gpuvm_verb dump' -l call -x -a 'auth_magic channel_alloc channel_free close drop_master exec gem_close gem_cpu_fini gem_cpu_prep gem_flink gem_info gem_new gem_open gem_pushbuf get_cap get_client get_magic get_stats get_unique get_zcull_info getparam gpuobj_free grobj_alloc notifierobj_alloc nvif prime_fd_to_handle prime_handle_to_fd set_client_cap set_client_name set_master set_version setparam svm_bind svm_init syncobj_create syncobj_destroy syncobj_eventfd syncobj_fd_to_handle syncobj_handle_to_fd syncobj_query syncobj_reset syncobj_signal syncobj_timeline_signal syncobj_timeline_wait syncobj_transfer syncobj_wait version vm_bind vm_init' -d 'calls of this name alone; may be repeated'
complete -c gpuvm -n '__gpuvm_verb dump' -l failed -d 'calls alone that were refused'
complete -c gpuvm -n '__gpuvm_verb dump' -l times -d 'when each began, and in <> how long it took, in seconds'
complete -c gpuvm -n '__gpuvm_verb dump' -l ops -d 'below each bind, what the manager emitted for it'
complete -c gpuvm -n '__gpuvm_verb dump' -l full -d 'long lists to their end'
complete -c gpuvm -n '__gpuvm_verb dump' -a '(__gpuvm_traces)'

complete -c gpuvm -n __gpuvm_no_verb -a sql -d 'ask a trace in SQL'
complete -c gpuvm -n '__gpuvm_verb sql' -s h -l help -d 'show this help message and exit'
complete -c gpuvm -n '__gpuvm_verb sql' -l json -d 'rows as JSON objects, one a line'
complete -c gpuvm -n '__gpuvm_verb sql' -l csv -d 'rows as CSV, with a line of names'
complete -c gpuvm -n '__gpuvm_verb sql' -a '(__gpuvm_traces)'

complete -c gpuvm -n __gpuvm_no_verb -a diff -d 'compare two traces'
complete -c gpuvm -n '__gpuvm_verb diff' -s h -l help -d 'show this help message and exit'
complete -c gpuvm -n '__gpuvm_verb diff' -l json -d 'counts and all differences as JSON'
complete -c gpuvm -n '__gpuvm_verb diff' -a '(__gpuvm_traces)'

complete -c gpuvm -n __gpuvm_no_verb -a trim -d 'write a part of a trace'
complete -c gpuvm -n '__gpuvm_verb trim' -s h -l help -d 'show this help message and exit'
complete -c gpuvm -n '__gpuvm_verb trim' -s o -l output -r -F -d 'the trace to write'
complete -c gpuvm -n '__gpuvm_verb trim' -s f -l force -d 'overwrite OUT'
complete -c gpuvm -n '__gpuvm_verb trim' -l calls -x -d 'these calls, and what they need: 100-200, 0-200, 100-'
complete -c gpuvm -n '__gpuvm_verb trim' -l client -x -d 'the calls of this client, and what they need'
complete -c gpuvm -n '__gpuvm_verb trim' -a '(__gpuvm_traces)'

complete -c gpuvm -n __gpuvm_no_verb -a export -d 'write a trace as Perfetto\'s, JSON or CSV'
complete -c gpuvm -n '__gpuvm_verb export' -s h -l help -d 'show this help message and exit'
complete -c gpuvm -n '__gpuvm_verb export' -l format -x -a 'perfetto json csv' -d 'which'
complete -c gpuvm -n '__gpuvm_verb export' -l table -x -a 'about device clients calls objects handles bind_ops mappings regions ops pushes syncobjs syncs jobs contexts other_fences fences accesses moves page_work faults call_totals totals doubts' -d 'csv: this table alone'
complete -c gpuvm -n '__gpuvm_verb export' -s o -l output -r -F -d 'file, csv without --table: folder; - is stdout'
complete -c gpuvm -n '__gpuvm_verb export' -s f -l force -d 'overwrite what is there'
complete -c gpuvm -n '__gpuvm_verb export' -a '(__gpuvm_traces)'

complete -c gpuvm -n __gpuvm_no_verb -a replay -d 'replay a recorded trace and summarise it'
complete -c gpuvm -n '__gpuvm_verb replay' -s h -l help -d 'show this help message and exit'
complete -c gpuvm -n '__gpuvm_verb replay' -l client -x -d 'replay this client alone'
complete -c gpuvm -n '__gpuvm_verb replay' -l until -x -d 'stop after this line of the file, or call of an SQLite trace, counted from 1'
complete -c gpuvm -n '__gpuvm_verb replay' -l driver -l no-driver -d 'whether to go through the driver (if not given: if the trace has calls that need it)'
complete -c gpuvm -n '__gpuvm_verb replay' -l vram -x -d 'this much VRAM: 64M, 1G, bytes'
complete -c gpuvm -n '__gpuvm_verb replay' -l gart -x -d 'with --vram: GART (default 64G)'
complete -c gpuvm -n '__gpuvm_verb replay' -l policy -x -a 'lru clock farthest' -d 'with --vram: some of lru,clock,farthest, with commas (default lru)'
complete -c gpuvm -n '__gpuvm_verb replay' -l json -d 'counts and mappings, or the policies, as JSON'
complete -c gpuvm -n '__gpuvm_verb replay' -a '(__gpuvm_traces)'

complete -c gpuvm -n __gpuvm_no_verb -a show -d 'draw an address space, print its gpuvas table'
complete -c gpuvm -n '__gpuvm_verb show' -s h -l help -d 'show this help message and exit'
complete -c gpuvm -n '__gpuvm_verb show' -l client -x -d 'whose space'
complete -c gpuvm -n '__gpuvm_verb show' -l until -x -d 'stop after this line of the file, or call of an SQLite trace, counted from 1'
complete -c gpuvm -n '__gpuvm_verb show' -s o -l output -r -F -d 'picture (default: gpuvm-show-FILE.svg)'
complete -c gpuvm -n '__gpuvm_verb show' -l json -d 'the space as one JSON object, not as a table'
complete -c gpuvm -n '__gpuvm_verb show' -s f -l force -d 'overwrite an existing picture'
complete -c gpuvm -n '__gpuvm_verb show' -a '(__gpuvm_traces)'

complete -c gpuvm -n __gpuvm_no_verb -a pagetable -d 'show page tables, or the walk of one address'
complete -c gpuvm -n '__gpuvm_verb pagetable' -s h -l help -d 'show this help message and exit'
complete -c gpuvm -n '__gpuvm_verb pagetable' -l until -x -d 'stop after this line of the file, or call of an SQLite trace, counted from 1'
complete -c gpuvm -n '__gpuvm_verb pagetable' -l addr -x -d 'walk this address, decimal or 0x'
complete -c gpuvm -n '__gpuvm_verb pagetable' -l client -x -d 'whose space'
complete -c gpuvm -n '__gpuvm_verb pagetable' -l format -x -a 'tu102 gp100 gh100 x86_64' -d 'tu102 (Turing to Ada, the default), gp100 (Pascal), gh100 (Hopper) or x86_64'
complete -c gpuvm -n '__gpuvm_verb pagetable' -l json -d 'the same as one JSON object'
complete -c gpuvm -n '__gpuvm_verb pagetable' -a '(__gpuvm_traces)'

complete -c gpuvm -n __gpuvm_no_verb -a explain -d 'say what one request would do, and why'
complete -c gpuvm -n '__gpuvm_verb explain' -s h -l help -d 'show this help message and exit'
complete -c gpuvm -n '__gpuvm_verb explain' -l on -r -F -d 'a trace or a request file; - is stdin'
complete -c gpuvm -n '__gpuvm_verb explain' -l client -x -d 'whose space (default: the one with the most requests)'
complete -c gpuvm -n '__gpuvm_verb explain' -l until -x -d 'stop after this line of the file, or call of an SQLite trace, counted from 1'
complete -c gpuvm -n '__gpuvm_verb explain' -l merge -x -a 'never always within-region' -d 'never (as kernels do today, the default), always or within-region'
complete -c gpuvm -n '__gpuvm_verb explain' -l json -d 'the same as one JSON object'

complete -c gpuvm -n __gpuvm_no_verb -a ops -d 'answer requests: the ops that split and merge emit'
complete -c gpuvm -n '__gpuvm_verb ops' -s h -l help -d 'show this help message and exit'
complete -c gpuvm -n '__gpuvm_verb ops' -l merge -x -a 'never always within-region' -d 'never (as kernels do today, the default), always or within-region'
complete -c gpuvm -n '__gpuvm_verb ops' -a '(__gpuvm_traces)'

complete -c gpuvm -n __gpuvm_no_verb -a completion -d 'print a shell\'s completion script'
complete -c gpuvm -n '__gpuvm_verb completion' -s h -l help -d 'show this help message and exit'
complete -c gpuvm -n '__gpuvm_verb completion' -a 'bash zsh fish'
