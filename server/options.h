// Every setting of the server, one struct per part. Each field says what it means, its unit, its default and what it
// costs to raise it.
//
// A setting is a flag (`--max-num-seqs 64`), an environment variable (SWITCHYARD_MAX_NUM_SEQS=64) and a key of the YAML
// file given by --config (`max-num-seqs: 64`). A flag wins over the environment, that over the file, that over the
// default. Flags exist only here; every other part receives a struct.
#ifndef SWITCHYARD_SERVER_OPTIONS_H_
#define SWITCHYARD_SERVER_OPTIONS_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace switchyard {

struct ModelOptions {
  std::string model;                 // Hugging Face folder; required
  std::string served_model_name;     // name that requests use; default: last part of `model`
  std::string load_format = "auto";  // auto | safetensors | dummy (random weights from config.json alone)
  std::string dtype = "auto";  // auto (the checkpoint's) | float32 | bfloat16. float32 doubles memory and bandwidth
  // auto | keep | dequantize: experts stored as mxfp4 or fp8. Kept, they take a quarter or half of bfloat16's
  // memory and bandwidth, and are expanded whenever they are used
  std::string quantization = "auto";
  int64_t seed = 0;            // of dummy weights
  std::string expert_capacity = "none";  // none | config: rows that an expert takes of one prompt, as trained
  int32_t max_model_len = 0;   // tokens, prompt and output; 0 = the model's own. Raising: longer requests hold more KV
};

struct DeviceOptions {
  std::string device = "auto";          // auto | cpu | cuda
  std::string cpu_isa = "auto";         // auto | scalar | avx2 | avx512 | avx512_bf16 | amx
  int32_t num_threads = 0;              // CPU workers; 0 = one per available core. More than cores: slower
  std::string expert_gemm = "auto";     // of a GPU: auto | fastest | native | wgmma | cublas_grouped | cublas_padded
  std::string expert_gemm_table;        // file that auto and fastest choose by; empty: none
  double gpu_memory_utilization = 0.9;  // share of the GPU's free memory to use. Raising: more KV, less for others
};

struct SchedulingOptions {
  int32_t max_num_seqs = 64;               // sequences per step. Raising: more throughput, slower steps, larger buffers
  int32_t max_num_batched_tokens = 512;    // tokens per step. Raising: faster prefill, longer pauses between tokens
  int32_t block_size = 16;                 // tokens per KV block. Raising: less bookkeeping, more waste per sequence
  int64_t kv_cache_memory = 0;             // bytes of the KV pool; 0 = 1 GiB, on a GPU what is left. Raising: memory
  bool enable_prefix_caching = true;       // reuse the KV of equal prompt beginnings
  bool enable_chunked_prefill = true;      // long prompts run in pieces between decodes
  std::string scheduling_policy = "fcfs";  // fcfs | priority (lower Request.priority first)
  int64_t max_num_queued_reqs = 256;       // requests that may wait. Raising: longer waits instead of refusals
  int64_t max_num_queued_tokens = 262'144;  // prompt tokens that may wait. As above, and 4 bytes each
};

struct AccessOptions {
  std::string ssl_certfile;            // PEM: the server's certificate, then intermediates; none = plaintext
  std::string ssl_keyfile;             // PEM: its private key
  std::string ssl_ca_certs;            // PEM: who signs clients' certificates; set = every client needs one
  std::string api_key_file;            // SHA-256 hashes of the tokens that are let in; none = no token is asked for
  bool allow_insecure_tokens = false;  // tokens although the port is neither TLS nor on the loopback interface
};

struct GrpcOptions {
  std::string host = "0.0.0.0";                  // address to listen on
  int32_t port = 50051;                          // 0 = any free one
  int64_t max_message_bytes = int64_t{8} << 20;  // of one request. Raising: memory per call before any check
  int32_t max_connections = 0;  // in all; more are reset; 0 = no limit. Raising: about 50 KB and 2 descriptors each
  int32_t max_concurrent_streams = 1024;   // per connection. Raising: about 20 KB each
  int32_t max_open_calls = 4096;           // generating calls in all. Raising: about 20 KB each and their buffers
  int32_t max_metadata_bytes = 16'384;     // of one call's headers. Raising: memory per call
  double handshake_timeout = 10.0;         // seconds that a new connection has to begin HTTP/2. Raising: idle ones stay
  double keepalive_time = 10.0;            // seconds of silence before a connection is probed. Lowering: more pings
  double keepalive_timeout = 5.0;          // seconds until a silent connection is closed
  double max_connection_age = 0.0;         // seconds until a connection is asked to reconnect; 0 = never
  double max_connection_age_grace = 60.0;  // seconds that its calls then have to finish
  double max_request_seconds = 600.0;      // longest that a request may take. Raising: stuck ones stay longer
  int64_t stream_buffer_bytes = int64_t{1} << 20;  // unread output per call before it is ended. Raising: that memory
  bool enable_reflection = true;                   // lets tools list the services
  AccessOptions access;
};

// OpenAI's interface: at the address of gRPC, with its certificate, its tokens and its limits of sizes.
struct HttpOptions {
  int32_t http_port = -1;               // 0 = any free one; -1 = none
  int32_t http_max_connections = 1024;  // in all; more are reset. Raising: about 30 KB and 2 descriptors each
  double http_idle_timeout = 60.0;      // seconds between two requests until a connection is closed
};

struct AdminOptions {
  std::string admin_host = "0.0.0.0";          // address of /metrics, /livez, /readyz, /version
  int32_t admin_port = 8002;                   // 0 = any free one
  std::string metrics_expert_detail = "auto";  // off | layer | topk | full; auto = full up to 4,096 series, else topk
};

struct LifecycleOptions {
  double shutdown_timeout = 45.0;  // seconds that running requests have to finish after SIGTERM
  double stall_timeout = 30.0;     // seconds without progress until the server calls itself unhealthy
  std::string log_level = "info";  // debug | info | warning | error
};

struct ServerOptions {
  ModelOptions model;
  DeviceOptions device;
  SchedulingOptions scheduling;
  GrpcOptions grpc;
  HttpOptions http;
  AdminOptions admin;
  LifecycleOptions lifecycle;
};

// Where settings come from, so that tests need no process of their own.
struct OptionSources {
  std::vector<std::string> arguments;  // without the program's name
  std::function<std::optional<std::string>(const std::string& name)> environment;
  std::function<std::optional<std::string>(const std::string& path)> read_file;  // nullopt: cannot be read
};

struct ParsedOptions {
  ServerOptions options;
  std::string text;                   // --help or --version: print it and exit 0
  std::vector<std::string> problems;  // all of them, each naming the setting; not empty: exit 2
};

ParsedOptions ParseOptions(const OptionSources& sources);

// The sources of this process.
OptionSources ProcessSources(int argc, char** argv);

// "host:port" to listen on; an IPv6 address gets its brackets.
inline std::string HostAndPort(const std::string& host, int port) {
  const bool is_ipv6 = host.find(':') != std::string::npos && host.front() != '[';
  return (is_ipv6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

// Version of the software, e.g. "0.1.0".
std::string SoftwareVersion();

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_OPTIONS_H_
