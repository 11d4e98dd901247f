#include "client/commands/command.h"

#include <google/protobuf/util/json_util.h>

#include <istream>
#include <iterator>
#include <ostream>

#include "absl/strings/str_join.h"

namespace switchyard {

CallOptions CommandContext::Call(absl::Duration default_timeout) const {
  return {.timeout = timeout_seconds ? absl::Seconds(*timeout_seconds) : default_timeout};
}

int PrintError(const CommandContext& context, const absl::Status& status) {
  context.console.err << "switchyard: " << MakePrintable(Describe(status)) << "\n";
  if (absl::IsUnavailable(status) && DetailsOf(status).reason.empty()) {
    context.console.err
        << "Is a server running at " << context.client.address
        << "? `switchyard health --wait 60` waits for it; --address or SWITCHYARD_ADDRESS names another.\n";
  }
  if (absl::IsUnauthenticated(status)) {
    context.console.err << "Give a token that the server knows by SWITCHYARD_API_KEY or --api-key.\n";
  }
  return kExitError;
}

int PrintJson(const CommandContext& context, const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  options.always_print_primitive_fields = true;
  std::string json;
  const auto status = google::protobuf::util::MessageToJsonString(message, &json, options);
  if (!status.ok()) return PrintError(context, absl::InternalError("the answer cannot be written as JSON"));
  context.console.out << json << std::endl;
  return kExitOk;
}

std::string TextFrom(const std::vector<std::string>& words, std::istream& in) {
  if (words != std::vector<std::string>{"-"}) return absl::StrJoin(words, " ");
  return std::string(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
}

}  // namespace switchyard
