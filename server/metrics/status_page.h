// The page at "/" of the admin port: what the server does now, and where its experts' rows go, for who has no Grafana.
//
// One document without anything from elsewhere: page/ has its parts, CMake puts them into one text. It asks /metrics
// every two seconds and computes the rest in the browser, so that it shows nothing that /metrics does not.
#ifndef SWITCHYARD_SERVER_METRICS_STATUS_PAGE_H_
#define SWITCHYARD_SERVER_METRICS_STATUS_PAGE_H_

#include "server/metrics/admin_server.h"

namespace switchyard {

// Its policy lets the browser run this style and this script, by their hashes, ask this server, and nothing else.
AdminPage StatusPage();

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_METRICS_STATUS_PAGE_H_
