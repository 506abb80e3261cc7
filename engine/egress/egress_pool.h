// Egress sources, and the pools of them that messages name (x-pool, x-virtual-mta): where a message goes out from.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/config/config.h"
#include "engine/core/ids.h"
#include "engine/core/socket_address.h"

namespace postrider {

// An egress source as the sockets want it; number 0 is the kernel's choice.
struct EgressSource {
    std::string name;  // "unspecified" for the kernel's choice, as in KumoMTA
    std::optional<SocketAddress> address;
    std::string hostname;
};

struct PoolMember {
    SourceId source = 0;
    uint32_t weight = 1;  // of its part of the pool's messages
};

struct EgressPool {
    PoolId id = 0;
    std::string name;
    std::vector<PoolMember> members;  // not empty
};

// Those of the configuration: the default, [[pool]], and each source as a pool of itself. Without a [[source]] every name is
// the default's, which is the kernel's choice.
class EgressPools {
  public:
    explicit EgressPools(const Config& config);
    // Empty: the default. Null: nothing of the configuration has the name.
    const EgressPool* find(std::string_view name) const;
    size_t size() const { return pools_.size(); }
    const EgressPool& operator[](PoolId id) const { return pools_[id]; }

  private:
    void add(std::string name, std::vector<PoolMember> members);

    bool sources_ = false;
    std::vector<EgressPool> pools_;
    std::map<std::string, PoolId, std::less<>> ids_;
};

}  // namespace postrider
