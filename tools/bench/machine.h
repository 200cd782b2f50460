// Where figures were measured.
#pragma once

#include <string>

namespace tenon::bench {

std::string cpu_model();      // "AMD EPYC 9654"
int cores();                  // that this process may use
double load();                // programs that wanted to run, on average over the last minute
std::string tenon_version();  // with compiler and oneDNN

}  // namespace tenon::bench
