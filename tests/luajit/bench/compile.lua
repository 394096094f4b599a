-- Traces that are made, patched, run a little and thrown away.
local sum = 0
for n = 1, 4000 do
  local f = assert(loadstring(([[
    local s = 0
    for i = 1, 150 do
      if i %% 3 == %d then s = s + i elseif i %% 5 == 1 then s = s - %d.5 else s = s + 1 end
    end
    return s]]):format(n % 3, n)))
  sum = sum + f() + f()
end
print(sum)
