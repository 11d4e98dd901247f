// Talks to a Switchyard server.
//
//   ASSIGN_OR_RETURN(auto client, switchyard::Client::Create({.address = "localhost:50051"}));
//   switchyard::v1::GenerateRequest request;
//   request.set_text("Once upon a time");
//   absl::Status status = client->GenerateStream(request, {.timeout = absl::Seconds(30)},
//                                                [](const switchyard::v1::GenerateStreamResponse& message) {
//     for (const auto& delta : message.choices()) std::cout << delta.text() << std::flush;
//     return true;                                        // false: enough, cancel
//   });
//
// Errors are the server's: its code, its message, and its details, which DetailsOf reads. UNAVAILABLE also means that
// nobody listens at the address; DEADLINE_EXCEEDED that the call's timeout passed, in the queue or while running.
//
// Threads: a Client may be used by many threads at once. A Stream belongs to one thread, except Cancel.
#ifndef SWITCHYARD_CLIENT_SWITCHYARD_CLIENT_H_
#define SWITCHYARD_CLIENT_SWITCHYARD_CLIENT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "switchyard/v1/expert_service.pb.h"
#include "switchyard/v1/inference_service.pb.h"

namespace switchyard {

// Where the server is and how to talk to it.
struct ClientOptions {
  std::string address = "localhost:50051";  // host:port, or any gRPC target such as dns:///host:port
  bool tls = false;                         // encrypt; implied by the three files
  std::string ca_file = {};                 // PEM certificates to trust; empty: the system's
  std::string cert_file = {};               // PEM certificate of this client, for servers that ask for one
  std::string key_file = {};                // PEM key of cert_file
  std::string api_key = {};                 // sent as `authorization: Bearer`; empty: not sent
  int64_t max_message_bytes = 64 << 20;     // of one message in either direction
  int max_attempts = 1;         // 2 to 5: try again on RESOURCE_EXHAUSTED when the server says so, as late as it says
  bool own_connection = false;  // do not share a TCP connection with other clients of this process
};

// How to make one call.
struct CallOptions {
  absl::Duration timeout = absl::InfiniteDuration();  // the request's deadline; it reaches the server's scheduler
};

// Messages that the server sends while a call runs.
template <class Message>
class Stream {
 public:
  // Cancels the call if it still runs.
  virtual ~Stream() = default;
  // Waits for the next message. False: the call ended, Finish tells how.
  virtual bool Next(Message* message) = 0;
  // Waits for the end of the call, dropping unread messages. CANCELLED after Cancel. Call it once.
  virtual absl::Status Finish() = 0;
  // Ends the call soon. From any thread, any number of times.
  virtual void Cancel() = 0;
};

// What health checks answer.
enum class Health { kUnknown, kServing, kNotServing, kServiceUnknown };

// "SERVING", "NOT_SERVING", ...
const char* HealthName(Health health);

class Client {
 public:
  // Connects when the first call needs it. INVALID_ARGUMENT: a certificate file cannot be read, max_attempts is not
  // 1 to 5, or the address is empty.
  static absl::StatusOr<std::unique_ptr<Client>> Create(const ClientOptions& options);
  ~Client();

  // Generates and answers once.
  absl::StatusOr<v1::GenerateResponse> Generate(const v1::GenerateRequest& request, const CallOptions& options = {});
  // Generates and streams.
  std::unique_ptr<Stream<v1::GenerateStreamResponse>> GenerateStream(const v1::GenerateRequest& request,
                                                                     const CallOptions& options = {});
  // The same with a function that gets each message in order, on this thread. It returns whether to go on; false
  // cancels the call, which then ends as CANCELLED.
  absl::Status GenerateStream(const v1::GenerateRequest& request, const CallOptions& options,
                              const std::function<bool(const v1::GenerateStreamResponse&)>& on_message);
  // Ends a running or waiting request.
  absl::StatusOr<v1::AbortResponse> Abort(const v1::AbortRequest& request, const CallOptions& options = {});

  absl::StatusOr<v1::TokenizeResponse> Tokenize(const v1::TokenizeRequest& request, const CallOptions& options = {});
  absl::StatusOr<v1::DetokenizeResponse> Detokenize(const v1::DetokenizeRequest& request,
                                                    const CallOptions& options = {});

  absl::StatusOr<v1::Model> GetModel(const CallOptions& options = {});
  absl::StatusOr<v1::Server> GetServer(const CallOptions& options = {});
  absl::StatusOr<v1::Load> GetLoad(const CallOptions& options = {});

  absl::StatusOr<v1::ExpertLoad> GetExpertLoad(const v1::GetExpertLoadRequest& request,
                                               const CallOptions& options = {});
  std::unique_ptr<Stream<v1::ExpertLoad>> WatchExpertLoad(const v1::WatchExpertLoadRequest& request,
                                                          const CallOptions& options = {});

  // Health of a service by its full name; empty: of the whole server. NOT_FOUND: no such service.
  absl::StatusOr<Health> CheckHealth(const std::string& service, const CallOptions& options = {});
  // The health now and after each change.
  std::unique_ptr<Stream<Health>> WatchHealth(const std::string& service, const CallOptions& options = {});
  // Waits until the service is SERVING, also while nobody listens yet. DEADLINE_EXCEEDED: it was not within `timeout`;
  // the message says what it was last. UNIMPLEMENTED, UNAUTHENTICATED, ...: waiting will not help.
  absl::Status WaitUntilServing(const std::string& service, absl::Duration timeout);

 private:
  struct Rep;
  explicit Client(std::unique_ptr<Rep> rep);

  std::unique_ptr<Rep> rep_;
};

// What a server adds to an error.
struct ErrorDetails {
  std::string reason;                                                 // such as "QUEUE_FULL"; empty: none given
  std::vector<std::pair<std::string, std::string>> field_violations;  // path of the field, what is wrong
  std::optional<absl::Duration> retry_delay;                          // try again after it
};

// Reads the details of an error that a Client returned.
ErrorDetails DetailsOf(const absl::Status& status);

// One line for people, without the detail's repetitions:
// "RESOURCE_EXHAUSTED: the queue is full (QUEUE_FULL; retry after 1s)".
std::string Describe(const absl::Status& status);

}  // namespace switchyard

#endif  // SWITCHYARD_CLIENT_SWITCHYARD_CLIENT_H_
