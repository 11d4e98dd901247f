// Sends the log lines of gRPC and Protobuf into our log. On their own they write to stderr and wait for it, so that a
// client that provokes them could hold up the server when stderr is a full pipe.
#ifndef SWITCHYARD_SERVER_FRONTEND_LIBRARY_LOG_H_
#define SWITCHYARD_SERVER_FRONTEND_LIBRARY_LOG_H_

namespace switchyard {

// Errors only, at most 10 lines a second; the rest is dropped. Call before gRPC is used.
void RouteLibraryLogs();

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_FRONTEND_LIBRARY_LOG_H_
