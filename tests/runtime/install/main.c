#include <kiln/kiln.h>
#include <stdio.h>

int main(int argc, char **argv) {
  const KilnApi *kiln = kiln_get_api(KILN_API_VERSION);
  KilnModule *module;
  KilnModuleInfo info;
  KilnError error;
  if (argc != 2 || kiln->open(argv[1], NULL, &module, &error) != KILN_OK)
    return 1;
  kiln->module_info(module, &info);
  printf("%s: %u entries\n", info.name, info.entry_count);
  kiln->close(module);
  return info.entry_count == 5 ? 0 : 1;
}
