// What a process has around it that loading a library must leave alone.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace tenon::validate {

struct Surroundings {
  // What it is, in a few words, and its state as text: equal texts, equal states.
  std::vector<std::pair<std::string, std::string>> parts;
};

// Output so far, files of the working folder, open files, environment, locale, working folder, signals, the modes of
// floating-point arithmetic, threads.
Surroundings look_around();
// The parts that differ, in words: "the environment and the locale"; "" when none does.
std::string changes(const Surroundings& before, const Surroundings& after);

}  // namespace tenon::validate
