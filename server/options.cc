#include "server/options.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <limits>
#include <map>
#include <set>
#include <sstream>
#include <utility>

namespace switchyard {
namespace {

// One setting: its place in the help, and how a text becomes its value. `assign` returns what is wrong, or "".
struct Setting {
  std::string name;
  std::string group;
  std::string value;  // how the value is called in the help; empty for switches
  std::string help;
  std::function<std::string(const std::string& text)> assign;

  bool is_switch() const { return value.empty(); }
};

// ------------------------------------------------------------------------------------------- texts to values

std::string Shown(const std::string& text) {
  std::string shown = "\"";
  for (char c : text.substr(0, 64)) shown += std::isprint(static_cast<unsigned char>(c)) != 0 ? c : '?';
  return shown + (text.size() > 64 ? "...\"" : "\"");
}

template <typename T>
std::string AssignInteger(const std::string& text, int64_t low, int64_t high, T* target) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc() && end == text.data() + text.size() && value >= low && value <= high) {
    *target = static_cast<T>(value);
    return "";
  }
  return "is " + Shown(text) + "; use a whole number from " + std::to_string(low) + " to " + std::to_string(high);
}

// 1024, 512M, 4G, 4GiB; the suffixes are powers of 1024.
std::string AssignBytes(const std::string& text, int64_t low, int64_t* target) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  std::string suffix(end, text.data() + text.size());
  std::transform(suffix.begin(), suffix.end(), suffix.begin(), [](unsigned char c) { return std::toupper(c); });
  if (suffix.size() == 3 && suffix.substr(1) == "IB") suffix.resize(1);
  const std::string suffixes = "KMGT";
  const size_t power = suffix.size() == 1 ? suffixes.find(suffix) : std::string::npos;
  const int shift = suffix.empty() ? 0 : power == std::string::npos ? -1 : 10 * (static_cast<int>(power) + 1);
  const bool fits = shift >= 0 && value <= (uint64_t{1} << 62 >> shift);
  if (error != std::errc() || !fits || static_cast<int64_t>(value << shift) < low) {
    return "is " + Shown(text) + "; use bytes from " + std::to_string(low) + " on, or 512M, 4G";
  }
  *target = static_cast<int64_t>(value << shift);
  return "";
}

std::string AssignSeconds(const std::string& text, double low, double high, double* target) {
  double value = 0.0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc() && end == text.data() + text.size() && std::isfinite(value) && value >= low &&
      value <= high) {
    *target = value;
    return "";
  }
  std::ostringstream message;
  message << "is " << Shown(text) << "; use seconds from " << low << " to " << high;
  return message.str();
}

std::string AssignShare(const std::string& text, double* target) {
  double value = 0.0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !(value > 0.0 && value <= 1.0)) {
    return "is " + Shown(text) + "; use a share above 0 and up to 1";
  }
  *target = value;
  return "";
}

std::string AssignSwitch(const std::string& text, bool* target) {
  if (text == "true" || text == "1" || text == "on" || text == "yes") {
    *target = true;
  } else if (text == "false" || text == "0" || text == "off" || text == "no") {
    *target = false;
  } else {
    return "is " + Shown(text) + "; use true or false";
  }
  return "";
}

std::string AssignChoice(const std::string& text, const std::vector<std::string>& choices, std::string* target) {
  if (std::find(choices.begin(), choices.end(), text) != choices.end()) {
    *target = text;
    return "";
  }
  std::string message = "is " + Shown(text) + "; use ";
  for (size_t i = 0; i < choices.size(); ++i)
    message += (i == 0 ? "" : i + 1 == choices.size() ? " or " : ", ") + choices[i];
  return message;
}

std::string AssignText(const std::string& text, std::string* target) {
  if (text.empty() || text.size() > 4096 || text.find('\0') != std::string::npos) {
    return "is " + (text.empty() ? std::string("empty") : "not a usable text") + "; use 1 to 4096 characters";
  }
  *target = text;
  return "";
}

// ---------------------------------------------------------------------------------------------- the settings

class Table {
 public:
  explicit Table(ServerOptions* options) {
    AddModel(&options->model);
    AddDevice(&options->device);
    AddScheduling(&options->scheduling);
    AddGrpc(&options->grpc);
    AddHttp(&options->http);
    AddAccess(&options->grpc.access);
    AddAdmin(&options->admin);
    AddLifecycle(&options->lifecycle);
  }

  const std::vector<Setting>& settings() const { return settings_; }

  const Setting* Find(const std::string& name) const {
    for (const Setting& setting : settings_) {
      if (setting.name == name) return &setting;
    }
    return nullptr;
  }

 private:
  void AddModel(ModelOptions* o) {
    group_ = "Model";
    Text("model", "FOLDER", "Hugging Face model folder (required)", &o->model);
    Text("served-model-name", "NAME", "name that requests use; default: last part of --model", &o->served_model_name);
    Choice("load-format", {"auto", "safetensors", "dummy"}, "dummy: random weights from config.json alone",
           &o->load_format);
    Choice("dtype", {"auto", "float32", "bfloat16"}, "type of the weights in memory; auto: the checkpoint's",
           &o->dtype);
    Choice("quantization", {"auto", "keep", "dequantize"},
           "experts stored as mxfp4 or fp8: keep them so (auto: where the device can), or make them --dtype",
           &o->quantization);
    Choice("expert-capacity", {"none", "config"},
           "rows that an expert takes of one prompt: all, or as many as config.json says (Switch); others pass it by",
           &o->expert_capacity);
    Integer("seed", 0, std::numeric_limits<int64_t>::max(), "seed of dummy weights", &o->seed);
    Integer("max-model-len", 0, 10'000'000, "tokens of prompt and output together; 0: the model's own",
            &o->max_model_len);
  }

  void AddDevice(DeviceOptions* o) {
    group_ = "Device";
    Choice("device", {"auto", "cpu", "cuda"}, "where the model runs; auto: a GPU if there is one", &o->device);
    Choice("cpu-isa", {"auto", "scalar", "avx2", "avx512", "avx512_bf16", "amx"}, "instruction set of the CPU backend",
           &o->cpu_isa);
    Integer("num-threads", 0, 1024, "CPU workers; 0: one per available core", &o->num_threads);
    Choice("expert-gemm", {"auto", "fastest", "native", "wgmma", "cublas_grouped", "cublas_padded"},
           "who multiplies the experts on a GPU; auto: native, or the one that --expert-gemm-table names for the "
           "model's shape; fastest: the table's for each number of tokens; with it and cublas_*, the last bits of an "
           "answer may depend on the batch",
           &o->expert_gemm);
    Text("expert-gemm-table", "FILE", "measured by switchyard_bench_gpu --tune, for --expert-gemm auto and fastest",
         &o->expert_gemm_table);
    Share("gpu-memory-utilization", "share of the GPU's free memory to use", &o->gpu_memory_utilization);
  }

  void AddScheduling(SchedulingOptions* o) {
    group_ = "Scheduling and KV cache";
    Integer("max-num-seqs", 1, 65'536, "sequences per step", &o->max_num_seqs);
    Integer("max-num-batched-tokens", 1, 1'048'576, "tokens per step", &o->max_num_batched_tokens);
    Multiple("block-size", 16, 1024, "tokens per KV block, a multiple of 16", &o->block_size);
    Bytes("kv-cache-memory", 4096, "size of the KV pool, e.g. 512M or 4G; by default 1G, on a GPU what is left",
          &o->kv_cache_memory);
    Switch("enable-prefix-caching", "reuse the KV of equal prompt beginnings", &o->enable_prefix_caching);
    Switch("enable-chunked-prefill", "run long prompts in pieces between decodes", &o->enable_chunked_prefill);
    Choice("scheduling-policy", {"fcfs", "priority"}, "who runs first", &o->scheduling_policy);
    Integer("max-num-queued-reqs", 1, 1'000'000, "requests that may wait; more are refused", &o->max_num_queued_reqs);
    Integer("max-num-queued-tokens", 1, 1'000'000'000, "prompt tokens that may wait; more are refused",
            &o->max_num_queued_tokens);
  }

  void AddGrpc(GrpcOptions* o) {
    group_ = "gRPC";
    Text("host", "ADDRESS", "address to listen on", &o->host);
    Integer("port", 0, 65'535, "port to listen on; 0: any free one", &o->port);
    Bytes("max-message-bytes", 1024, "size of one request, at most 1G", &o->max_message_bytes);
    Integer("max-connections", 0, 1'000'000, "connections in all; more are reset; 0: no limit", &o->max_connections);
    Integer("max-concurrent-streams", 1, 1'000'000, "calls per connection", &o->max_concurrent_streams);
    Integer("max-open-calls", 1, 1'000'000, "generating calls in all", &o->max_open_calls);
    Integer("max-metadata-bytes", 1024, 1'048'576, "headers of one call", &o->max_metadata_bytes);
    Seconds("handshake-timeout", 0.1, 3600, "for a new connection to begin HTTP/2", &o->handshake_timeout);
    Seconds("keepalive-time", 1, 86'400, "silence before a connection is probed", &o->keepalive_time);
    Seconds("keepalive-timeout", 0.1, 3600, "then, until it is closed", &o->keepalive_timeout);
    Seconds("max-connection-age", 0, 2'000'000, "until a connection is asked to reconnect; 0: never",
            &o->max_connection_age);
    Seconds("max-connection-age-grace", 1, 86'400, "then, for its calls to finish", &o->max_connection_age_grace);
    Seconds("max-request-seconds", 0.1, 604'800, "longest a request may take", &o->max_request_seconds);
    Bytes("stream-buffer-bytes", 4096, "unread output per call before it is ended", &o->stream_buffer_bytes);
    Switch("enable-reflection", "let tools list the services", &o->enable_reflection);
  }

  void AddAccess(AccessOptions* o) {
    group_ = "Access to gRPC and HTTP";
    Text("ssl-certfile", "FILE", "PEM certificate chain of the server; without: plaintext", &o->ssl_certfile);
    Text("ssl-keyfile", "FILE", "PEM private key of it", &o->ssl_keyfile);
    Text("ssl-ca-certs", "FILE", "PEM certificates that sign clients'; with it, clients need one", &o->ssl_ca_certs);
    Text("api-key-file", "FILE", "hashes of the tokens that may call (see `switchyard token`)", &o->api_key_file);
    Switch("allow-insecure-tokens", "take tokens over plaintext that others can reach, behind a proxy that encrypts",
           &o->allow_insecure_tokens);
  }

  void AddHttp(HttpOptions* o) {
    group_ = "OpenAI over HTTP";
    Integer("http-port", -1, 65'535, "port of /v1, at the address of --host; 0: any free one; -1: none", &o->http_port);
    Integer("http-max-connections", 1, 1'000'000, "connections in all; more are reset", &o->http_max_connections);
    Seconds("http-idle-timeout", 0.1, 86'400, "between two requests, until a connection is closed",
            &o->http_idle_timeout);
  }

  void AddAdmin(AdminOptions* o) {
    group_ = "Metrics and admin port";
    Text("admin-host", "ADDRESS", "address of /metrics, /livez, /readyz, /version", &o->admin_host);
    Integer("admin-port", 0, 65'535, "its port; 0: any free one", &o->admin_port);
    Choice("metrics-expert-detail", {"auto", "off", "layer", "topk", "full"},
           "which expert series exist; auto: full up to 4096 of them, else topk", &o->metrics_expert_detail);
  }

  void AddLifecycle(LifecycleOptions* o) {
    group_ = "Lifecycle";
    Seconds("shutdown-timeout", 0, 86'400, "for running requests to finish after SIGTERM", &o->shutdown_timeout);
    Seconds("stall-timeout", 1, 86'400, "without progress, until the server calls itself unhealthy", &o->stall_timeout);
    Choice("log-level", {"debug", "info", "warning", "error"}, "least severe lines to log", &o->log_level);
  }

  void Add(std::string name, std::string value, std::string help,
           std::function<std::string(const std::string&)> assign) {
    settings_.push_back({std::move(name), group_, std::move(value), std::move(help), std::move(assign)});
  }
  template <typename T>
  void Integer(const char* name, int64_t low, int64_t high, const char* help, T* target) {
    Add(name, "N", std::string(help) + " (" + std::to_string(*target) + ")",
        [=](const std::string& text) { return AssignInteger(text, low, high, target); });
  }
  template <typename T>
  void Multiple(const char* name, int64_t unit, int64_t high, const char* help, T* target) {
    Add(name, "N", std::string(help) + " (" + std::to_string(*target) + ")", [=](const std::string& text) {
      int64_t value = 0;
      const bool fits = AssignInteger(text, unit, high, &value).empty() && value % unit == 0;
      if (fits) *target = static_cast<T>(value);
      return fits ? ""
                  : "is " + Shown(text) + "; use a multiple of " + std::to_string(unit) + " up to " +
                        std::to_string(high);
    });
  }
  void Bytes(const char* name, int64_t low, const char* help, int64_t* target) {
    Add(name, "BYTES", std::string(help) + (*target > 0 ? " (" + std::to_string(*target) + ")" : ""),
        [=](const std::string& text) { return AssignBytes(text, low, target); });
  }
  void Seconds(const char* name, double low, double high, const char* help, double* target) {
    std::ostringstream shown;
    shown << help << " (" << *target << ")";
    Add(name, "SECONDS", shown.str(), [=](const std::string& text) { return AssignSeconds(text, low, high, target); });
  }
  void Share(const char* name, const char* help, double* target) {
    std::ostringstream shown;
    shown << help << " (" << *target << ")";
    Add(name, "SHARE", shown.str(), [=](const std::string& text) { return AssignShare(text, target); });
  }
  void Switch(const char* name, const char* help, bool* target) {
    Add(name, "", std::string(help) + (*target ? " (on)" : " (off)"),
        [=](const std::string& text) { return AssignSwitch(text, target); });
  }
  void Choice(const char* name, std::vector<std::string> choices, const char* help, std::string* target) {
    std::string value;
    for (const std::string& choice : choices) value += (value.empty() ? "" : "|") + choice;
    Add(name, value, std::string(help) + " (" + *target + ")",
        [choices = std::move(choices), target](const std::string& text) {
          return AssignChoice(text, choices, target);
        });
  }
  void Text(const char* name, const char* value, const char* help, std::string* target) {
    Add(name, value, std::string(help) + (target->empty() ? "" : " (" + *target + ")"),
        [target](const std::string& text) { return AssignText(text, target); });
  }

  std::string group_;
  std::vector<Setting> settings_;
};

std::string HelpText(const Table& table) {
  std::ostringstream out;
  out << "Usage: switchyard-server --model FOLDER [flags]\n\n"
         "Serves a Mixture-of-Experts language model over gRPC. Each flag is also an environment variable\n"
         "(SWITCHYARD_MAX_NUM_SEQS) and a key of the --config file (max-num-seqs: 64); the flag wins, then the\n"
         "environment, then the file. Defaults in parentheses.\n";
  std::string group;
  for (const Setting& setting : table.settings()) {
    if (setting.group != group) out << "\n" << (group = setting.group) << ":\n";
    std::string left = "  --" + (setting.is_switch() ? "[no-]" + setting.name : setting.name + " " + setting.value);
    left += left.size() < 38 ? std::string(38 - left.size(), ' ') : "\n" + std::string(38, ' ');
    out << left << setting.help << "\n";
  }
  out << "\nOther:\n"
         "  --config FILE.yaml                  settings by name, one per line\n"
         "  --help, --version\n";
  return out.str();
}

// ----------------------------------------------------------------------------------------------- the sources

// Reads the sources one after the other into the table's options, and notes what is wrong with each.
class Reader {
 public:
  Reader(const Table* table, std::vector<std::string>* problems) : table_(table), problems_(problems) {}

  // Splits `arguments` into flags without assigning them: the file and the environment go first.
  void ReadFlags(const std::vector<std::string>& arguments) {
    for (size_t i = 0; i < arguments.size(); ++i) {
      const std::string& argument = arguments[i];
      if (argument.size() < 3 || argument.substr(0, 2) != "--") {
        problems_->push_back(Shown(argument) + " is not a flag; flags start with -- (see --help)");
        continue;
      }
      const size_t equals = argument.find('=');
      const std::string name = Normalized(argument.substr(2, equals == std::string::npos ? equals : equals - 2));
      if (name == "help" || name == "version") {
        asked_for_ = name;
        continue;
      }
      if (equals != std::string::npos) {
        AddFlag(name, argument.substr(equals + 1));
      } else if (IsSwitch(name)) {
        AddFlag(name, "true");
      } else if (name != "config" && table_->Find(name) == nullptr) {
        AddFlag(name, "");
        // The value of an unknown flag is no problem of its own.
        if (i + 1 < arguments.size() && arguments[i + 1].substr(0, 2) != "--") ++i;
      } else if (i + 1 < arguments.size() && arguments[i + 1].substr(0, 2) != "--") {
        AddFlag(name, arguments[++i]);
      } else {
        problems_->push_back("--" + name + " needs a value");
      }
    }
  }

  void ReadEnvironment(const std::function<std::optional<std::string>(const std::string&)>& environment) {
    for (const Setting& setting : table_->settings()) {
      const std::string name = EnvironmentName(setting.name);
      const std::optional<std::string> value = environment(name);
      // Kubernetes sets SWITCHYARD_PORT=tcp://... in every pod when a Service is called "switchyard".
      if (!value || (setting.name == "port" && value->substr(0, 6) == "tcp://")) continue;
      Assign(setting, *value, name);
    }
  }

  void ReadFile(const std::string& path, const std::optional<std::string>& text) {
    if (!text) {
      problems_->push_back("--config: " + Shown(path) + " cannot be read");
      return;
    }
    try {
      ReadYaml(YAML::Load(*text));
    } catch (const YAML::Exception& error) {
      problems_->push_back("--config: line " + std::to_string(error.mark.line + 1) + ": " + error.msg);
    }
  }

  void AssignFlags() {
    for (const auto& [name, value] : flags_) {
      const bool negated = name.substr(0, 3) == "no-" && IsSwitch(name.substr(3));
      const Setting* setting = table_->Find(negated ? name.substr(3) : name);
      if (setting == nullptr) {
        problems_->push_back("--" + Shown(name).substr(1, name.size() > 64 ? 64 : name.size()) +
                             " is no flag of this server" + Suggestion(name));
      } else if (negated && value != "true") {
        problems_->push_back("--" + name + " takes no value");
      } else {
        Assign(*setting, negated ? "false" : value, "--" + name);
      }
    }
  }

  const std::string& asked_for() const { return asked_for_; }
  const std::optional<std::string>& config_path() const { return config_path_; }

 private:
  static std::string Normalized(std::string name) {
    std::replace(name.begin(), name.end(), '_', '-');
    return name;
  }

  static std::string EnvironmentName(const std::string& name) {
    std::string result = "SWITCHYARD_";
    for (char c : name) result += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    return result;
  }

  bool IsSwitch(const std::string& name) const {
    const Setting* setting = table_->Find(name.substr(0, 3) == "no-" ? name.substr(3) : name);
    return setting != nullptr && setting->is_switch();
  }

  void AddFlag(const std::string& name, const std::string& value) {
    if (name == "config") {
      config_path_ = value;
    } else {
      flags_.emplace_back(name, value);
    }
  }

  void Assign(const Setting& setting, const std::string& value, const std::string& source) {
    const std::string problem = setting.assign(value);
    if (!problem.empty()) problems_->push_back(source + " " + problem);
  }

  void ReadYaml(const YAML::Node& root) {
    if (root.IsNull()) return;
    if (!root.IsMap()) {
      problems_->push_back("--config: the file is not a map of settings (`max-num-seqs: 64`)");
      return;
    }
    std::set<std::string> seen;
    for (const auto& entry : root) {
      const std::string name = entry.first.IsScalar() ? Normalized(entry.first.Scalar()) : std::string("?");
      const std::string where = "--config: line " + std::to_string(entry.first.Mark().line + 1) + ": ";
      const Setting* setting = table_->Find(name);
      if (setting == nullptr) {
        problems_->push_back(where + Shown(name) + " is no setting of this server" + Suggestion(name));
      } else if (!seen.insert(name).second) {
        problems_->push_back(where + name + " is there twice");
      } else if (!entry.second.IsScalar()) {
        problems_->push_back(where + name + " needs one plain value");
      } else {
        Assign(*setting, entry.second.Scalar(), where + name);
      }
    }
  }

  // ", did you mean --x?" for the setting that shares most of its beginning with `name`.
  std::string Suggestion(const std::string& name) const {
    const Setting* best = nullptr;
    size_t best_length = 4;
    for (const Setting& setting : table_->settings()) {
      const auto mismatch = std::mismatch(name.begin(), name.end(), setting.name.begin(), setting.name.end());
      const size_t length = static_cast<size_t>(mismatch.first - name.begin());
      if (length > best_length) {
        best = &setting;
        best_length = length;
      }
    }
    return best == nullptr ? "" : ", did you mean --" + best->name + "?";
  }

  const Table* const table_;
  std::vector<std::string>* const problems_;
  std::vector<std::pair<std::string, std::string>> flags_;
  std::optional<std::string> config_path_;
  std::string asked_for_;
};

// ------------------------------------------------------------------------------------- settings that must agree

std::string LastPathPart(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path.substr(path.find_last_of('/') + 1);
}

bool IsLoopback(const std::string& host) {
  const bool is_address = host.find_first_not_of("0123456789.") == std::string::npos;
  return host == "localhost" || host == "::1" || host == "[::1]" || (is_address && host.substr(0, 4) == "127.");
}

void CheckAccess(const GrpcOptions& o, std::vector<std::string>* problems) {
  const AccessOptions& a = o.access;
  if (a.ssl_certfile.empty() != a.ssl_keyfile.empty()) {
    problems->push_back(a.ssl_keyfile.empty() ? "--ssl-keyfile is missing; --ssl-certfile needs it"
                                              : "--ssl-certfile is missing; --ssl-keyfile needs it");
  }
  if (!a.ssl_ca_certs.empty() && a.ssl_certfile.empty()) {
    problems->push_back("--ssl-ca-certs asks clients for certificates, which needs --ssl-certfile and --ssl-keyfile");
  }
  if (!a.api_key_file.empty() && a.ssl_certfile.empty() && !IsLoopback(o.host) && !a.allow_insecure_tokens) {
    problems->push_back(
        "--api-key-file without --ssl-certfile would send tokens readable to anyone on the way; use TLS, "
        "or --host 127.0.0.1, or --allow-insecure-tokens where a proxy or mesh encrypts");
  }
}

void CheckTogether(const ServerOptions& o, std::vector<std::string>* problems) {
  const SchedulingOptions& s = o.scheduling;
  if (o.model.model.empty()) problems->push_back("--model is missing; give the folder of a Hugging Face model");
  if (s.max_num_batched_tokens < s.max_num_seqs) {
    problems->push_back("--max-num-batched-tokens is " + std::to_string(s.max_num_batched_tokens) +
                        ", but each of the --max-num-seqs " + std::to_string(s.max_num_seqs) +
                        " sequences needs one token per step");
  }
  if (!s.enable_chunked_prefill && s.max_num_batched_tokens < int64_t{o.model.max_model_len} + s.max_num_seqs) {
    problems->push_back("--max-num-batched-tokens is " + std::to_string(s.max_num_batched_tokens) +
                        ", but with --no-enable-chunked-prefill a prompt of --max-model-len " +
                        std::to_string(o.model.max_model_len) + " and one token for each of --max-num-seqs " +
                        std::to_string(s.max_num_seqs) + " must fit into one step");
  }
  if (o.grpc.port != 0 && o.grpc.port == o.admin.admin_port) {
    problems->push_back("--port and --admin-port are both " + std::to_string(o.grpc.port) + "; use two ports");
  }
  if (o.http.http_port > 0 && (o.http.http_port == o.grpc.port || o.http.http_port == o.admin.admin_port)) {
    problems->push_back("--http-port is " + std::to_string(o.http.http_port) + ", and so is " +
                        (o.http.http_port == o.grpc.port ? "--port" : "--admin-port") + "; use two ports");
  }
  if (o.grpc.max_message_bytes > int64_t{1} << 30) {
    problems->push_back("--max-message-bytes is " + std::to_string(o.grpc.max_message_bytes) + "; use at most 1G");
  }
  CheckAccess(o.grpc, problems);
  if (o.device.device == "cuda" && o.device.cpu_isa != "auto") {
    problems->push_back("--cpu-isa is " + o.device.cpu_isa + ", but --device is cuda; leave one of them out");
  }
}

}  // namespace

ParsedOptions ParseOptions(const OptionSources& sources) {
  ParsedOptions parsed;
  const Table table(&parsed.options);
  const std::string help = HelpText(table);
  Reader reader(&table, &parsed.problems);
  reader.ReadFlags(sources.arguments);
  if (!reader.asked_for().empty()) {
    parsed.text = reader.asked_for() == "help" ? help : "switchyard-server " + SoftwareVersion() + "\n";
    parsed.problems.clear();
    return parsed;
  }
  std::optional<std::string> config = reader.config_path();
  if (!config) config = sources.environment("SWITCHYARD_CONFIG");
  if (config) reader.ReadFile(*config, sources.read_file(*config));
  reader.ReadEnvironment(sources.environment);
  reader.AssignFlags();
  CheckTogether(parsed.options, &parsed.problems);
  ModelOptions& model = parsed.options.model;
  if (model.served_model_name.empty()) model.served_model_name = LastPathPart(model.model);
  return parsed;
}

OptionSources ProcessSources(int argc, char** argv) {
  OptionSources sources;
  sources.arguments.assign(argv + 1, argv + argc);
  sources.environment = [](const std::string& name) -> std::optional<std::string> {
    const char* value = std::getenv(name.c_str());
    return value == nullptr ? std::nullopt : std::optional<std::string>(value);
  };
  sources.read_file = [](const std::string& path) -> std::optional<std::string> {
    std::ifstream file(path, std::ios::binary);
    if (!file) return std::nullopt;
    std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    if (file.bad()) return std::nullopt;
    return text;
  };
  return sources;
}

std::string SoftwareVersion() { return SWITCHYARD_VERSION; }

}  // namespace switchyard
