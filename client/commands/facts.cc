// switchyard model, server, load: facts as lines of "name  value", or as JSON.
#include <memory>
#include <ostream>
#include <span>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/commands/command.h"
#include "client/view/facts_text.h"

namespace switchyard {
namespace {

std::string OnOff(bool on) { return on ? "on" : "off"; }

double Seconds(const google::protobuf::Duration& duration) {
  return static_cast<double>(duration.seconds()) + 1e-9 * duration.nanos();
}

std::string Render(const v1::Model& model) {
  const std::span<const int32_t> moe_layers(model.moe_layers().data(), static_cast<size_t>(model.moe_layers_size()));
  std::string text = FactLine("name", model.name());
  text += FactLine("architecture", model.architecture());
  text += FactLine("dtype", model.dtype());
  text += FactLine("expert dtype", model.expert_dtype());
  text += FactLine("parameters", GroupDigits(model.num_parameters()));
  text += FactLine("active per token", GroupDigits(model.num_active_parameters()));
  text += FactLine("weight bytes", GroupDigits(model.weight_bytes()));
  text += FactLine("vocabulary", GroupDigits(model.vocab_size()));
  text += FactLine("context tokens", GroupDigits(model.max_model_len()));
  text += FactLine("layers", GroupDigits(model.num_layers()));
  text += FactLine("MoE layers", NumberRanges(moe_layers));
  text += FactLine("experts per MoE layer", GroupDigits(model.num_experts()));
  text += FactLine("experts per token", GroupDigits(model.top_k()));
  text += FactLine("chat template", model.has_chat_template() ? "yes" : "no");
  return text + FactLine("end of sequence", absl::StrJoin(model.eos_token_ids(), ", "));
}

std::string Render(const v1::Server& server) {
  const v1::ServerLimits& limits = server.limits();
  const v1::ServerFeatures& features = server.features();
  std::string text = FactLine("version", server.version());
  text += FactLine("backend", server.backend());
  text += FactLine("model", server.model());
  text += FactLine("uptime seconds", absl::StrFormat("%.1f", Seconds(server.uptime())));
  text += FactLine("load seconds", absl::StrFormat("%.3f", Seconds(server.load_duration())));
  text += FactLine("max_model_len", GroupDigits(limits.max_model_len()));
  text += FactLine("max_num_seqs", GroupDigits(limits.max_num_seqs()));
  text += FactLine("max_num_batched_tokens", GroupDigits(limits.max_num_batched_tokens()));
  text += FactLine("max_num_queued_reqs", GroupDigits(limits.max_num_queued_reqs()));
  text += FactLine("max_num_queued_tokens", GroupDigits(limits.max_num_queued_tokens()));
  text += FactLine("max_message_bytes", GroupDigits(limits.max_message_bytes()));
  text += FactLine("max_prompt_bytes", GroupDigits(limits.max_prompt_bytes()));
  text += FactLine("KV blocks",
                   absl::StrCat(GroupDigits(limits.num_kv_blocks()), " of ", limits.block_size(), " tokens"));
  text += FactLine("prefix caching", OnOff(features.prefix_caching()));
  text += FactLine("chunked prefill", OnOff(features.chunked_prefill()));
  return text + FactLine("priority scheduling", OnOff(features.priority_scheduling()));
}

std::string Render(const v1::Load& load) {
  const std::string share = absl::StrFormat(" (%.1f%%)", 100 * load.kv_cache_usage());
  std::string text = FactLine("ready", load.ready() ? "yes" : "no");
  text += FactLine("open calls", GroupDigits(load.open_calls()));
  text += FactLine("waiting requests", GroupDigits(load.waiting_requests()));
  text += FactLine("running requests", GroupDigits(load.running_requests()));
  text += FactLine("waiting tokens", GroupDigits(load.waiting_tokens()));
  text += FactLine("KV blocks used", absl::StrCat(GroupDigits(load.kv_blocks_used()), " of ",
                                                  GroupDigits(load.kv_blocks_total()), share));
  text += FactLine("prompt tokens", GroupDigits(static_cast<int64_t>(load.prompt_tokens_total())));
  text += FactLine("generated tokens", GroupDigits(static_cast<int64_t>(load.generation_tokens_total())));
  return text + FactLine("preemptions", GroupDigits(static_cast<int64_t>(load.preemptions_total())));
}

template <class Facts>
void AddFactsCommand(CLI::App* app, CommandContext* context, const char* name, const char* description,
                     absl::StatusOr<Facts> (Client::*get)(const CallOptions&)) {
  CLI::App* command = app->add_subcommand(name, description);
  auto json = std::make_shared<bool>(false);
  command->add_flag("--json", *json, "Print JSON");
  const auto run = [=] {
    const auto client = Client::Create(context->client);
    if (!client.ok()) return PrintError(*context, client.status());
    const absl::StatusOr<Facts> facts = (client->get()->*get)(context->Call(kShortTimeout));
    if (!facts.ok()) return PrintError(*context, facts.status());
    if (*json) return PrintJson(*context, *facts);
    context->console.out << Render(*facts);
    return static_cast<int>(kExitOk);
  };
  command->callback([=] { context->action = run; });
}

}  // namespace

void AddModelCommand(CLI::App* app, CommandContext* context) {
  AddFactsCommand(app, context, "model", "Show the served model", &Client::GetModel);
}

void AddServerCommand(CLI::App* app, CommandContext* context) {
  AddFactsCommand(app, context, "server", "Show the server's version, backend and limits", &Client::GetServer);
}

void AddLoadCommand(CLI::App* app, CommandContext* context) {
  AddFactsCommand(app, context, "load", "Show how busy the server is", &Client::GetLoad);
}

}  // namespace switchyard
