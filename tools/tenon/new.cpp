// tenon new: a plugin to start from.
#include "tools/new/new.h"

#include <cstdio>

#include "tools/tenon/commands.h"

namespace tenon::cli {
namespace {

struct NewFlags {
  std::string kind, name, folder = ".";
};

int write_plugin(const NewFlags& flags) {
  const auto made = scaffold::make_plugin(flags.kind, flags.name, flags.folder);
  if (!made) return report(made.status());
  for (const std::string& file : made->files) std::printf("wrote %s\n", file.c_str());
  std::printf("\nBuild and check it, in that folder:\n  %s\n  tenon validate %s.so\n", made->build.c_str(), flags.name.c_str());
  return 0;
}

}  // namespace

void add_new(CLI::App& app, Command& run) {
  auto flags = std::make_shared<NewFlags>();
  std::string kinds;
  for (const std::string& k : scaffold::kinds()) kinds += (kinds.empty() ? "" : ", ") + k;
  CLI::App* c = app.add_subcommand("new", "Write a plugin to start from: one file that works, and the header that it needs");
  c->add_option("kind", flags->kind, kinds)->required();
  c->add_option("name", flags->name, "The plugin's id: lower-case letters, digits, '_'")->required();
  c->add_option("--dir", flags->folder, "Folder to write into (made if it is missing; default: here)");
  c->callback([flags, &run] { run = [flags] { return write_plugin(*flags); }; });
}

}  // namespace tenon::cli
