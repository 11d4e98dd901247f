#include "server/http/openai_api.h"

#include <chrono>
#include <nlohmann/json.hpp>
#include <utility>

#include "engine/base/status_macros.h"
#include "server/frontend/call_admission.h"
#include "server/frontend/errors.h"
#include "server/http/openai_error.h"
#include "server/http/ordered_json.h"

namespace switchyard::http {
namespace {

constexpr char kModels[] = "/v1/models";
constexpr char kModel[] = "/v1/models/";
constexpr char kCompletions[] = "/v1/completions";
constexpr char kChat[] = "/v1/chat/completions";

std::string PathOf(const std::string& target) { return target.substr(0, target.find_first_of("?#")); }

bool IsModels(const std::string& path) { return path == kModels || path.rfind(kModel, 0) == 0; }

// Null: no such path.
const char* MethodOf(const std::string& path) {
  if (IsModels(path)) return "GET";
  return path == kCompletions || path == kChat ? "POST" : nullptr;
}

// "application/json; charset=utf-8" is JSON, too. A form is not: a web page of anybody may send one.
bool IsJson(const std::string& content_type) {
  std::string kind = content_type.substr(0, content_type.find(';'));
  while (!kind.empty() && (kind.back() == ' ' || kind.back() == '\t')) kind.pop_back();
  for (char& c : kind) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return kind == "application/json";
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

// "%2F" -> "/". What is no such code stays as it is.
std::string Unescaped(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool is_code =
        text[i] == '%' && i + 2 < text.size() && HexDigit(text[i + 1]) >= 0 && HexDigit(text[i + 2]) >= 0;
    out += is_code ? static_cast<char>(16 * HexDigit(text[i + 1]) + HexDigit(text[i + 2])) : text[i];
    if (is_code) i += 2;
  }
  return out;
}

}  // namespace

AnswerPart OpenAiApi::Refuse(const absl::Status& status, const std::string& request_id) const {
  parts_->metrics->OnCallAnswered(static_cast<int>(status.code()));
  return ErrorAnswer(status, request_id);
}

std::optional<AnswerPart> OpenAiApi::Refusal(const RequestHead& head) const {
  const std::string id = RequestIdOf("", head.request_id);
  const auto tokens = credentials_->tokens();
  if (tokens != nullptr && !tokens->Admits({head.authorization.begin(), head.authorization.end()})) {
    return Refuse(AuthenticationRequired(), id);
  }
  const char* const method = MethodOf(PathOf(head.target));
  if (method == nullptr) return Refuse(NoSuchPath(), id);
  if (head.method != method) {
    AnswerPart answer = Refuse(WrongMethod(method), id);
    answer.head->headers.emplace_back("Allow", method);
    return answer;
  }
  const bool has_body = head.method == "POST";
  const bool is_plain = head.content_encoding.empty() || head.content_encoding == "identity";
  if (has_body && !(is_plain && IsJson(head.content_type))) return Refuse(WrongContentType(), id);
  return std::nullopt;
}

absl::StatusOr<std::string> OpenAiApi::Models(const std::string& path) const {
  ASSIGN_OR_RETURN(const ServedModel* model, parts_->LoadedModel());
  const bool is_list = path == kModels;
  const std::string name = is_list ? "" : Unescaped(path.substr(sizeof(kModel) - 1));
  if (!is_list && name != model->limits.served_model_name) {
    return ModelNotFound(name, model->limits.served_model_name);
  }
  const auto age = std::chrono::steady_clock::now() - parts_->start;
  const auto created = (std::chrono::system_clock::now() - age).time_since_epoch();
  nlohmann::ordered_json entry = {{"id", model->limits.served_model_name},
                                  {"object", "model"},
                                  {"created", std::chrono::duration_cast<std::chrono::seconds>(created).count()},
                                  {"owned_by", "switchyard"},
                                  {"max_model_len", model->limits.max_model_len}};
  if (!is_list) return ToText(entry);
  return ToText({{"object", "list"}, {"data", nlohmann::ordered_json::array({std::move(entry)})}});
}

std::shared_ptr<Exchange> OpenAiApi::Run(const RequestHead& head, std::string body,
                                         std::shared_ptr<AnswerSink> sink) const {
  const std::string id = RequestIdOf("", head.request_id);
  const std::string path = PathOf(head.target);
  if (IsModels(path)) {
    const absl::StatusOr<std::string> json = Models(path);
    if (json.ok()) parts_->metrics->OnCallAnswered(0);
    sink->Send(json.ok() ? AnswerPart{AnswerHead{.headers = {{"x-request-id", id}}}, *json, true}
                         : Refuse(json.status(), id));
    return nullptr;
  }
  const Endpoint endpoint = path == kChat ? Endpoint::kChat : Endpoint::kCompletions;
  auto exchange = std::make_shared<Exchange>(parts_, endpoint, id, std::move(sink));
  exchange->Begin(std::move(body));
  return exchange;
}

}  // namespace switchyard::http
