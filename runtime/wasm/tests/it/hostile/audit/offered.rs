//! What a guest may import, to the last function: whatever is added to it, here or by Wasmtime, is to be looked at.

/// WASI 0.2: the interfaces, and what is in each of them, functions and resources.
pub(super) const INTERFACES: [(&str, &str); 29] = [
    ("wasi:cli/environment", "get-arguments get-environment initial-cwd"),
    ("wasi:cli/exit", "exit exit-with-code"),
    ("wasi:cli/stderr", "get-stderr"),
    ("wasi:cli/stdin", "get-stdin"),
    ("wasi:cli/stdout", "get-stdout"),
    ("wasi:cli/terminal-input", "terminal-input"),
    ("wasi:cli/terminal-output", "terminal-output"),
    ("wasi:cli/terminal-stderr", "get-terminal-stderr"),
    ("wasi:cli/terminal-stdin", "get-terminal-stdin"),
    ("wasi:cli/terminal-stdout", "get-terminal-stdout"),
    ("wasi:clocks/monotonic-clock", "now resolution subscribe-duration subscribe-instant"),
    ("wasi:clocks/wall-clock", "now resolution"),
    ("wasi:filesystem/preopens", "get-directories"),
    (
        "wasi:filesystem/types",
        "descriptor descriptor.advise descriptor.append-via-stream descriptor.create-directory-at \
         descriptor.get-flags descriptor.get-type descriptor.is-same-object descriptor.link-at \
         descriptor.metadata-hash descriptor.metadata-hash-at descriptor.open-at descriptor.read \
         descriptor.read-directory descriptor.read-via-stream descriptor.readlink-at \
         descriptor.remove-directory-at descriptor.rename-at descriptor.set-size descriptor.set-times \
         descriptor.set-times-at descriptor.stat descriptor.stat-at descriptor.symlink-at descriptor.sync \
         descriptor.sync-data descriptor.unlink-file-at descriptor.write descriptor.write-via-stream \
         directory-entry-stream directory-entry-stream.read-directory-entry filesystem-error-code",
    ),
    ("wasi:http/outgoing-handler", "handle"),
    (
        "wasi:http/types",
        "fields fields.append fields.clone fields.delete fields.entries fields.from-list fields.get \
         fields.has fields.set future-incoming-response future-incoming-response.get \
         future-incoming-response.subscribe future-trailers future-trailers.get future-trailers.subscribe \
         http-error-code incoming-body incoming-body.finish incoming-body.stream incoming-request \
         incoming-request.authority incoming-request.consume incoming-request.headers \
         incoming-request.method incoming-request.path-with-query incoming-request.scheme incoming-response \
         incoming-response.consume incoming-response.headers incoming-response.status outgoing-body \
         outgoing-body.finish outgoing-body.write outgoing-request outgoing-request.authority \
         outgoing-request.body outgoing-request.headers outgoing-request.method \
         outgoing-request.path-with-query outgoing-request.scheme outgoing-request.set-authority \
         outgoing-request.set-method outgoing-request.set-path-with-query outgoing-request.set-scheme \
         outgoing-response outgoing-response.body outgoing-response.headers \
         outgoing-response.set-status-code outgoing-response.status-code request-options \
         request-options.between-bytes-timeout request-options.connect-timeout \
         request-options.first-byte-timeout request-options.set-between-bytes-timeout \
         request-options.set-connect-timeout request-options.set-first-byte-timeout response-outparam \
         response-outparam.set",
    ),
    ("wasi:io/error", "error error.to-debug-string"),
    ("wasi:io/poll", "poll pollable pollable.block pollable.ready"),
    (
        "wasi:io/streams",
        "input-stream input-stream.blocking-read input-stream.blocking-skip input-stream.read \
         input-stream.skip input-stream.subscribe output-stream output-stream.blocking-flush \
         output-stream.blocking-splice output-stream.blocking-write-and-flush \
         output-stream.blocking-write-zeroes-and-flush output-stream.check-write output-stream.flush \
         output-stream.splice output-stream.subscribe output-stream.write output-stream.write-zeroes",
    ),
    ("wasi:random/insecure", "get-insecure-random-bytes get-insecure-random-u64"),
    ("wasi:random/insecure-seed", "insecure-seed"),
    ("wasi:random/random", "get-random-bytes get-random-u64"),
    ("wasi:sockets/instance-network", "instance-network"),
    (
        "wasi:sockets/ip-name-lookup",
        "resolve-address-stream resolve-address-stream.resolve-next-address \
         resolve-address-stream.subscribe resolve-addresses",
    ),
    ("wasi:sockets/network", "network"),
    (
        "wasi:sockets/tcp",
        "tcp-socket tcp-socket.accept tcp-socket.address-family tcp-socket.finish-bind \
         tcp-socket.finish-connect tcp-socket.finish-listen tcp-socket.hop-limit tcp-socket.is-listening \
         tcp-socket.keep-alive-count tcp-socket.keep-alive-enabled tcp-socket.keep-alive-idle-time \
         tcp-socket.keep-alive-interval tcp-socket.local-address tcp-socket.receive-buffer-size \
         tcp-socket.remote-address tcp-socket.send-buffer-size tcp-socket.set-hop-limit \
         tcp-socket.set-keep-alive-count tcp-socket.set-keep-alive-enabled \
         tcp-socket.set-keep-alive-idle-time tcp-socket.set-keep-alive-interval \
         tcp-socket.set-listen-backlog-size tcp-socket.set-receive-buffer-size \
         tcp-socket.set-send-buffer-size tcp-socket.shutdown tcp-socket.start-bind tcp-socket.start-connect \
         tcp-socket.start-listen tcp-socket.subscribe",
    ),
    ("wasi:sockets/tcp-create-socket", "create-tcp-socket"),
    (
        "wasi:sockets/udp",
        "incoming-datagram-stream incoming-datagram-stream.receive incoming-datagram-stream.subscribe \
         outgoing-datagram-stream outgoing-datagram-stream.check-send outgoing-datagram-stream.send \
         outgoing-datagram-stream.subscribe udp-socket udp-socket.address-family udp-socket.finish-bind \
         udp-socket.local-address udp-socket.receive-buffer-size udp-socket.remote-address \
         udp-socket.send-buffer-size udp-socket.set-receive-buffer-size udp-socket.set-send-buffer-size \
         udp-socket.set-unicast-hop-limit udp-socket.start-bind udp-socket.stream udp-socket.subscribe \
         udp-socket.unicast-hop-limit",
    ),
    ("wasi:sockets/udp-create-socket", "create-udp-socket"),
];

/// What a function exports, and nobody offers.
pub(super) const EXPORTED: [(&str, &str); 2] =
    [("wasi:cli/run", "run"), ("wasi:http/incoming-handler", "handle")];

/// What the text of WASI 0.2 marks as unstable.
pub(super) const UNSTABLE: [(&str, &str); 3] = [
    ("wasi:clocks/timezone", "display utc-offset"),
    ("wasi:http/types", "response-outparam.send-informational"),
    ("wasi:sockets/network", "network-error-code"),
];

/// What other hosts offer, and this one does not.
pub(super) const FOREIGN: [&str; 10] = [
    "wasi:blobstore/container@0.2.0",
    "wasi:config/store@0.2.0",
    "wasi:config/runtime@0.2.0",
    "wasi:keyvalue/store@0.2.0",
    "wasi:logging/logging@0.2.0",
    "wasi:messaging/producer@0.2.0",
    "wasi:nn/inference@0.2.0",
    "wasi:sql/readwrite@0.2.0",
    "wasi:tls/types@0.2.0",
    "fermyon:spin/key-value@2.0.0",
];

/// WASI preview 1: the functions, and their parameters, of 32 bits or, in capitals, of 64.
pub(super) const PREVIEW1: [(&str, &str); 46] = [
    ("args_get", "ii"),
    ("args_sizes_get", "ii"),
    ("clock_res_get", "ii"),
    ("clock_time_get", "iIi"),
    ("environ_get", "ii"),
    ("environ_sizes_get", "ii"),
    ("fd_advise", "iIIi"),
    ("fd_allocate", "iII"),
    ("fd_close", "i"),
    ("fd_datasync", "i"),
    ("fd_fdstat_get", "ii"),
    ("fd_fdstat_set_flags", "ii"),
    ("fd_fdstat_set_rights", "iII"),
    ("fd_filestat_get", "ii"),
    ("fd_filestat_set_size", "iI"),
    ("fd_filestat_set_times", "iIIi"),
    ("fd_pread", "iiiIi"),
    ("fd_prestat_dir_name", "iii"),
    ("fd_prestat_get", "ii"),
    ("fd_pwrite", "iiiIi"),
    ("fd_read", "iiii"),
    ("fd_readdir", "iiiIi"),
    ("fd_renumber", "ii"),
    ("fd_seek", "iIii"),
    ("fd_sync", "i"),
    ("fd_tell", "ii"),
    ("fd_write", "iiii"),
    ("path_create_directory", "iii"),
    ("path_filestat_get", "iiiii"),
    ("path_filestat_set_times", "iiiiIIi"),
    ("path_link", "iiiiiii"),
    ("path_open", "iiiiiIIii"),
    ("path_readlink", "iiiiii"),
    ("path_remove_directory", "iii"),
    ("path_rename", "iiiiii"),
    ("path_symlink", "iiiii"),
    ("path_unlink_file", "iii"),
    ("poll_oneoff", "iiii"),
    ("proc_exit", "i"),
    ("proc_raise", "i"),
    ("random_get", "ii"),
    ("sched_yield", ""),
    ("sock_accept", "iii"),
    ("sock_recv", "iiiiii"),
    ("sock_send", "iiiii"),
    ("sock_shutdown", "ii"),
];
