// switchyard inspect: what a model folder holds and whether a server here would serve it. Reads files; asks no server.
#include "engine/inspect.h"

#include <memory>
#include <nlohmann/json.hpp>
#include <ostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/commands/command.h"
#include "client/view/facts_text.h"

namespace switchyard {
namespace {

// Bytes as "12.3 GiB".
std::string Size(int64_t bytes) {
  const char* const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double amount = static_cast<double>(bytes);
  size_t unit = 0;
  for (; amount >= 1024.0 && unit + 1 < std::size(units); ++unit) amount /= 1024.0;
  return absl::StrFormat("%.*f %s", unit == 0 ? 0 : 1, amount, units[unit]);
}

// What a check of part of the folder says: `good`, `absent` where there is no such part, or the problems.
std::string Outcome(const absl::Status& status, const char* good, const char* absent) {
  if (status.ok()) return good;
  return absl::IsNotFound(status) ? absent : std::string(status.message());
}

// Facts may have several lines; those after the first stand below it.
std::string Lines(const char* name, const std::string& value) {
  std::string text;
  for (size_t at = 0; at <= value.size();) {
    const size_t end = std::min(value.find('\n', at), value.size());
    text += FactLine(text.empty() ? name : "", value.substr(at, end - at));
    at = end + 1;
  }
  return text;
}

std::string Render(const ImageFacts& image) {
  std::string text = FactLine("image size", absl::StrCat(image.image_size, " x ", image.image_size, " pixels")) +
                     FactLine("patch size", absl::StrCat(image.patch_size, " x ", image.patch_size, " pixels")) +
                     FactLine("tokens per image", GroupDigits(image.tokens_per_image)) +
                     FactLine("classes", GroupDigits(image.num_classes));
  if (image.expert_capacity == 0) return text;
  return text + FactLine("expert capacity", absl::StrCat(image.expert_capacity, " choices of an image's tokens"));
}

std::string Render(const ModelInspection& model) {
  std::string text = FactLine("architecture", model.architecture) +
                     FactLine("parameters", GroupDigits(model.num_parameters)) +
                     FactLine("active per token", GroupDigits(model.num_active_parameters)) +
                     FactLine("in experts", GroupDigits(model.num_expert_parameters)) +
                     FactLine("layers", GroupDigits(model.num_layers)) +
                     FactLine("MoE layers", NumberRanges(model.moe_layers)) +
                     FactLine("experts per MoE layer", GroupDigits(model.num_experts)) +
                     FactLine("experts per token", GroupDigits(model.top_k)) +
                     FactLine("expert width", GroupDigits(model.expert_width));
  if (model.shared_expert_width > 0) text += FactLine("shared expert width", GroupDigits(model.shared_expert_width));
  text += FactLine("attention", model.attention) + FactLine("hidden size", GroupDigits(model.hidden_size));
  if (model.image.has_value()) {
    text += Render(*model.image);
  } else {
    text += FactLine("vocabulary", GroupDigits(model.vocab_size)) +
            FactLine("context tokens", GroupDigits(model.max_position_embeddings));
  }
  text += FactLine("stored", absl::StrCat(model.stored_dtype, ", ", Size(model.stored_bytes)));
  for (const BytesPerDType& memory : model.memory) {
    std::string parts = absl::StrCat("weights ", Size(memory.weight_bytes));
    if (!model.image.has_value()) {
      absl::StrAppend(&parts, ", KV cache ", GroupDigits(memory.kv_bytes_per_token), " bytes per token");
    }
    text += FactLine(absl::StrCat("memory in ", memory.dtype), parts);
    if (memory.weight_bytes_quantized > 0) {
      text += FactLine("  experts as stored", absl::StrCat("weights ", Size(memory.weight_bytes_quantized),
                                                           " (--quantization keep, on a CPU)"));
    }
  }
  text += Lines("weights", Outcome(model.weights, "complete", "none here; --load-format dummy makes some up"));
  if (!model.image.has_value()) {
    text += Lines("tokenizer", Outcome(model.tokenizer, "served", "none here; requests carry token ids")) +
            Lines("chat template", Outcome(model.chat_template, "served", "none"));
  }
  return text + Lines("cpu", "served") + Lines("cuda", Outcome(model.cuda, "served", ""));
}

nlohmann::ordered_json ToJson(const ModelInspection& model) {
  const auto state = [](const absl::Status& status) -> std::string {
    return status.ok() ? "ok" : absl::IsNotFound(status) ? "absent" : std::string(status.message());
  };
  nlohmann::ordered_json json = {{"architecture", model.architecture},
                                 {"stored_dtype", model.stored_dtype},
                                 {"stored_bytes", model.stored_bytes},
                                 {"num_parameters", model.num_parameters},
                                 {"num_active_parameters", model.num_active_parameters},
                                 {"num_expert_parameters", model.num_expert_parameters},
                                 {"num_layers", model.num_layers},
                                 {"moe_layers", model.moe_layers},
                                 {"num_experts", model.num_experts},
                                 {"top_k", model.top_k},
                                 {"expert_width", model.expert_width},
                                 {"shared_expert_width", model.shared_expert_width},
                                 {"attention", model.attention},
                                 {"hidden_size", model.hidden_size},
                                 {"weights", state(model.weights)},
                                 {"cpu", "ok"},
                                 {"cuda", state(model.cuda)}};
  for (const BytesPerDType& memory : model.memory) json["memory"][memory.dtype]["weight_bytes"] = memory.weight_bytes;
  if (model.image.has_value()) {
    json.update({{"image_size", model.image->image_size},
                 {"patch_size", model.image->patch_size},
                 {"tokens_per_image", model.image->tokens_per_image},
                 {"num_classes", model.image->num_classes},
                 {"expert_capacity", model.image->expert_capacity}});
    return json;
  }
  json.update({{"vocab_size", model.vocab_size},
               {"max_position_embeddings", model.max_position_embeddings},
               {"tokenizer", state(model.tokenizer)},
               {"chat_template", state(model.chat_template)}});
  for (const BytesPerDType& memory : model.memory) {
    json["memory"][memory.dtype]["kv_bytes_per_token"] = memory.kv_bytes_per_token;
    if (memory.weight_bytes_quantized > 0) {
      json["memory"][memory.dtype]["weight_bytes_quantized"] = memory.weight_bytes_quantized;
    }
  }
  return json;
}

bool IsBroken(const absl::Status& status) { return !status.ok() && !absl::IsNotFound(status); }

}  // namespace

void AddInspectCommand(CLI::App* app, CommandContext* context) {
  CLI::App* command =
      app->add_subcommand("inspect", "Show what a model folder on this machine holds and what can serve it");
  auto folder = std::make_shared<std::string>();
  auto json = std::make_shared<bool>(false);
  command->add_option("model_dir", *folder, "Hugging Face folder; config.json alone is enough")->required();
  command->add_flag("--json", *json, "Print JSON");
  const auto run = [=] {
    const absl::StatusOr<ModelInspection> model = InspectModel(*folder);
    if (!model.ok()) return PrintError(*context, model.status());
    if (*json) {
      context->console.out << ToJson(*model).dump(2, ' ', false, nlohmann::json::error_handler_t::replace) << "\n";
    } else {
      context->console.out << Render(*model);
    }
    const bool broken = IsBroken(model->weights) || IsBroken(model->tokenizer);
    return static_cast<int>(broken ? kExitError : kExitOk);
  };
  command->callback([=] { context->action = run; });
}

}  // namespace switchyard
