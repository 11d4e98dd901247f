// switchyard token: makes an API token for a server. Needs no server.
#include <openssl/rand.h>
#include <openssl/sha.h>

#include <array>
#include <memory>
#include <ostream>
#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/string_view.h"
#include "client/commands/command.h"

namespace switchyard {
namespace {

template <size_t size>
std::string Hex(const std::array<unsigned char, size>& bytes) {
  return absl::BytesToHexString(absl::string_view(reinterpret_cast<const char*>(bytes.data()), size));
}

bool IsName(const std::string& name) {
  return name.size() <= 64 && name == MakePrintable(name) && name.find_first_of(" \t") == std::string::npos;
}

}  // namespace

void AddTokenCommand(CLI::App* app, CommandContext* context) {
  CLI::App* command = app->add_subcommand(
      "token", "Make a random API token: itself on the standard error, its line of --api-key-file on the output");
  auto name = std::make_shared<std::string>();
  command->add_option("name", *name, "Who it is for; stands in the file beside the hash");
  const auto run = [=] {
    if (!IsName(*name)) {
      return PrintError(*context, absl::InvalidArgumentError(
                                      "the name must be printable, without blanks, and at most 64 bytes long"));
    }
    std::array<unsigned char, 32> random;
    if (RAND_bytes(random.data(), random.size()) != 1) {
      return PrintError(*context, absl::InternalError("the system gives no random numbers"));
    }
    const std::string token = "sy-" + Hex(random);
    std::array<unsigned char, SHA256_DIGEST_LENGTH> hash;
    SHA256(reinterpret_cast<const unsigned char*>(token.data()), token.size(), hash.data());
    context->console.err << "The token, which is shown this once: " << token << "\n";
    context->console.out << Hex(hash) << (name->empty() ? "" : " " + *name) << "\n";
    return static_cast<int>(kExitOk);
  };
  command->callback([=] { context->action = run; });
}

}  // namespace switchyard
